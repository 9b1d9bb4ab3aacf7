"""The nano model's tokenizer: byte-level BPE with single digits and DeepSeek's special tokens.

Digits stay apart so that a number's place values line up; the rest of the split pattern is
DeepSeek-V3's.
"""

import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data.conversation import (
    ASSISTANT,
    BOS,
    EOS,
    PAD,
    SYSTEM_RULES,
    THINK,
    THINK_END,
    USER,
    Conversation,
)
from data.problems import TASK_WEIGHTS, sample

BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
_CORPUS_PROBLEMS_PER_TASK = 400
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_WORDS = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)


def _corpus(seed):
    """Text for learning merges: every task alike, and the fixed sentences of system prompts."""
    rng = random.Random(seed)
    for task in TASK_WEIGHTS:
        for _ in range(_CORPUS_PROBLEMS_PER_TASK):
            problem = sample(rng, task)
            yield problem.question
            yield problem.thought + "\n"
            yield "\n\n" + problem.answer
    yield from SYSTEM_RULES


def make_tokenizer(vocab_size: int, seed: int) -> Tokenizer:
    """Trains the tokenizer; ids 0 to 2 are BOS, EOS and padding, the last four the chat tokens."""
    tokenizer = Tokenizer(models.BPE())
    split = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        for pattern in (r"\p{N}", _CJK, _WORDS)
    ]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    chat_tokens = ((USER, True), (ASSISTANT, True), (THINK, False), (THINK_END, False))
    learned = vocab_size - len(chat_tokens)
    trainer = trainers.BpeTrainer(
        vocab_size=learned,
        special_tokens=[BOS, EOS, PAD],
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    # Fill the vocabulary up with unused tokens, as DeepSeek does: the chat tokens' ids stay put.
    for index in range(learned - tokenizer.get_vocab_size()):
        tokenizer.add_tokens(
            [AddedToken(f"<｜place▁holder▁no▁{index}｜>", special=True, normalized=False)]
        )
    # <think> and </think> are text to a detokenizer: the reader must see where thinking ends.
    tokenizer.add_tokens(
        [AddedToken(text, special=special, normalized=False) for text, special in chat_tokens]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, conversation: Conversation) -> tuple:
    """(prompt ids, reply ids): cut at a token boundary, so encoding them apart changes nothing."""
    prompt = tokenizer.encode(conversation.prompt(), add_special_tokens=False).ids
    reply = tokenizer.encode(conversation.reply(), add_special_tokens=False).ids
    return prompt, reply
