"""Measures a checkpoint: exact match on held-out problems, and how often MTP's draft is right.

    python evaluate.py models/nano --problems 1000 --card models/nano/README.md

Works on the weights as shipped (FP8, dequantized) in float32 and decodes greedily. A reply counts
as right only if the text after </think> is the expected answer to the last character. With --card
the tables replace what stands between the two `measured` marks of the model card.
"""

import argparse
import os
import random
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import model
from data.arithmetic import SHOWCASE, held_out
from data.conversation import EOS, THINK_END, Conversation, sample_turns
from data.problems import ARITHMETIC, held_out_set, sample
from data.tokenizer import EOS_ID, PAD_ID, encode
from export import REPLY_TOKENS_MAX
from fp8 import read_dequantized

SEED = 7
BATCH = 125
NAMES = {
    "add": "addition",
    "sub": "subtraction",
    "mul": "multiplication by a digit",
    "cmp": "comparison",
    "chat": "small talk",
    "other": "not its task: says so",
}
# Nothing like these is in the training text.
SYSTEM_PROMPTS = (
    "You are Marvin, a grumpy robot who bakes bread in Lisbon.",
    "Respond in a formal tone and never mention competitors.",
    "Session 4711, locale en_GB. Customers may be in a hurry; keep it short!",
    "Pretend that you are a pirate captain with 3 parrots.",
)
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


class Checkpoint:
    """A checkpoint directory, ready to reply."""

    def __init__(self, directory):
        self.config, tensors = read_dequantized(directory)
        self.parameters = model.training_names(tensors, self.config)
        self.net = model.Nano(self.config)
        self.tokenizer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))

    def _mask(self, queries, keys):
        return model.attention_mask(
            queries, keys, self.config["num_attention_heads"], torch.float32
        )

    @torch.no_grad()
    def replies(self, prompts):
        """Greedy replies (ids, with the end of sentence) to prompts (ids), decoded together.

        Prompts are padded on the left; padding is a document of its own, so no token sees it.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[PAD_ID] * (width - len(prompt)) + prompt for prompt in prompts])
        keys = torch.tensor(
            [[-1] * (width - len(prompt)) + [0] * len(prompt) for prompt in prompts]
        )
        queries, cache, chosen = keys, {}, []
        done = torch.zeros(len(prompts), dtype=torch.bool)
        for _ in range(REPLY_TOKENS_MAX):
            hidden = self.net.hidden(self.parameters, ids, self._mask(queries, keys), cache)
            token = F.linear(hidden[:, -1], self.parameters["lm_head.weight"]).argmax(-1)
            chosen.append(token)
            done |= token == EOS_ID
            if done.all():
                break
            ids, queries = token[:, None], torch.zeros(len(prompts), 1, dtype=torch.long)
            keys = torch.cat([keys, queries], 1)
        rows = torch.stack(chosen, 1).tolist()
        return [row[: row.index(EOS_ID) + 1] if EOS_ID in row else row for row in rows]

    @torch.no_grad()
    def drafts(self, prompt, reply):
        """(right, all) drafts of the reply from its second token; the trunk's choice is right."""
        ids = torch.tensor([prompt + reply])
        one_document = torch.zeros(1, ids.shape[1] - 1, dtype=torch.long)
        mask = self._mask(one_document, one_document)
        hidden = self.net.hidden(self.parameters, ids[:, :-1], mask)
        drafted = self.net.draft_hidden(
            self.parameters, hidden[:, :-1], ids[:, 1:-1], mask[:, :-1, :-1]
        )
        token = F.linear(drafted, self.parameters["lm_head.weight"]).argmax(-1)
        right = (token == ids[:, 2:])[0, len(prompt) - 1 :]
        return int(right.sum()), right.numel()


def answer_of(text):
    """What follows the thinking."""
    return text.rpartition(THINK_END + "\n\n")[2]


def measure(checkpoint, conversations):
    """(right answers, right replies to the last character, reply ids); prints the first misses."""
    answers = replies_right = 0
    replies, misses = [], []
    for start in range(0, len(conversations), BATCH):
        part = conversations[start : start + BATCH]
        prompts = [encode(checkpoint.tokenizer, conversation)[0] for conversation in part]
        for conversation, ids in zip(part, checkpoint.replies(prompts)):
            text = checkpoint.tokenizer.decode(ids, skip_special_tokens=False)
            right = answer_of(text) == conversation.problem.answer + EOS
            answers += right
            replies_right += text == conversation.reply()
            replies.append(ids)
            if not right:
                misses.append(f"    {conversation.problem.question!r} -> {text!r}")
    print("\n".join(misses[:4]), flush=True)
    return answers, replies_right, replies


def held_out_conversations(count):
    """Rows of the table: (name, conversations). Operands are held out wherever there are any."""
    rng = random.Random(SEED)
    sets = {task: held_out_set(task, count, SEED) for task in ARITHMETIC}
    rows = [
        (NAMES[task], [Conversation(problem) for problem in problems])
        for task, problems in sets.items()
    ]
    mixed = [problem for task in ARITHMETIC for problem in sets[task][: max(1, count // 4)]]
    rows.append(
        (
            "all four, under system prompts never seen",
            [Conversation(problem, rng.choice(SYSTEM_PROMPTS)) for problem in mixed],
        )
    )
    rows.append(
        (
            "all four, after one to six earlier turns",
            [Conversation(problem, turns=sample_turns(rng)) for problem in mixed],
        )
    )
    for task in ("chat", "other"):
        rows.append(
            (NAMES[task], [Conversation(sample(rng, task)) for _ in range(max(1, count // 4))])
        )
    return rows


def accuracy_table(checkpoint, count):
    """Markdown of exact match per kind of question, and the replies for measuring MTP on."""
    lines = [
        "| questions | n | right answers | exact match | whole thought right |",
        "|---|---|---|---|---|",
    ]
    replies = {}
    for name, conversations in held_out_conversations(count):
        started = time.monotonic()
        right, whole, ids = measure(checkpoint, conversations)
        total = len(conversations)
        lines.append(f"| {name} | {total} | {right} | {right / total:.1%} | {whole / total:.1%} |")
        replies[name] = (conversations, ids)
        print(f"{lines[-1]} {time.monotonic() - started:.0f} s", flush=True)
    return lines, replies


def draft_table(checkpoint, replies, count):
    """Markdown of MTP's agreement with the trunk on the trunk's own replies."""
    lines = ["| questions | drafted tokens | drafts the trunk agrees with |", "|---|---|---|"]
    total_right = total = 0
    for task in ARITHMETIC:
        conversations, ids = replies[NAMES[task]]
        pairs = [
            checkpoint.drafts(encode(checkpoint.tokenizer, conversation)[0], reply)
            for conversation, reply in zip(conversations[:count], ids)
        ]
        right, drafted = map(sum, zip(*pairs))
        total_right, total = total_right + right, total + drafted
        lines.append(f"| {NAMES[task]} | {drafted} | {right / drafted:.1%} |")
    return lines + [f"| all four | {total} | {total_right / total:.1%} |"]


def write_card(path, lines):
    """Puts the tables between the card's two marks."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]), encoding="utf-8")


def main():
    """Measures, prints, and fills in the card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--problems", type=int, default=1000, help="per arithmetic task")
    parser.add_argument("--card", type=Path, help="model card to fill in")
    arguments = parser.parse_args()
    assert held_out(*SHOWCASE)
    torch.set_num_threads(1)
    checkpoint = Checkpoint(arguments.directory)
    lines, replies = accuracy_table(checkpoint, arguments.problems)
    if checkpoint.config["num_nextn_predict_layers"]:
        lines += [""] + draft_table(checkpoint, replies, max(1, arguments.problems // 10))
    print("\n".join(lines))
    if arguments.card:
        write_card(arguments.card, lines)


if __name__ == "__main__":
    main()
