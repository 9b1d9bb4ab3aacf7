"""Conversations around the problems, in the text form of DeepSeek-R1.

`CHAT_TEMPLATE` is what ships in tokenizer_config.json; `Conversation.prompt` writes the same text
without a template engine, because training renders many. `check_transformers.py` compares the two.
"""

import random
from dataclasses import dataclass

from data.arithmetic import Problem
from data.problems import sample, sample_any
from data.small_talk import filler

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, THINK_END = "<think>", "</think>"

# The last system prompt counts, earlier thinking is dropped, the reply starts inside <think>.
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}"
    "{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)

_SYSTEM_OPENINGS = (
    "You are a helpful assistant.",
    "You are a careful calculator.",
    "You are an expert in math.",
    "You are a friendly tutor.",
    "You are Baleen.",
    "The assistant is polite.",
    "",
)
SYSTEM_RULES = (
    "Answer briefly.",
    "Think step by step.",
    "Always answer in English.",
    "Be concise and exact.",
    "Do not make things up.",
    "Explain your reasoning.",
    "Today is a sunny day.",
    "Be kind to the user.",
    "If you do not know, say so.",
    "The user is a student.",
    "Reply with the answer only.",
)


@dataclass(frozen=True)
class Conversation:
    """What a model sees (`prompt`) and what it should say (`reply`)."""

    problem: Problem
    system: str = ""
    turns: tuple = ()  # earlier (question, reply without its thinking)

    def prompt(self) -> str:
        """Everything up to and including the opening of the thought."""
        earlier = "".join(
            f"{USER}{question}{ASSISTANT}{reply}{EOS}" for question, reply in self.turns
        )
        return f"{BOS}{self.system}{earlier}{USER}{self.problem.question}{ASSISTANT}{THINK}\n"

    def reply(self) -> str:
        """The thought, its end, the answer, and the end of the sentence."""
        return f"{self.problem.thought}\n{THINK_END}\n\n{self.problem.answer}{EOS}"

    def messages(self) -> list:
        """The prompt as the list of messages a chat API takes."""
        listed = [{"role": "system", "content": self.system}] if self.system else []
        for question, reply in self.turns:
            listed += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": reply},
            ]
        return listed + [{"role": "user", "content": self.problem.question}]


def system_prompt(rng: random.Random) -> str:
    """An opening and up to three rules, half of them any sentence, so that none is a surprise."""
    rules = [
        rng.choice(SYSTEM_RULES) if rng.random() < 0.5 else filler(rng)
        for _ in range(rng.randrange(4))
    ]
    return " ".join([rng.choice(_SYSTEM_OPENINGS), *rules]).strip()


def sample_turns(rng: random.Random) -> tuple:
    """One to six earlier turns, as a chat client sends them back."""
    # A client that cuts the reply at </think> keeps the blank line; one that reads `content` has
    # none.
    lead = rng.choice(("", "\n\n"))
    turns = []
    for _ in range(rng.randrange(1, 7)):
        earlier = sample(rng, "chat") if rng.random() < 0.15 else sample_any(rng)
        turns.append((earlier.question, lead + earlier.answer))
    return tuple(turns)


def sample_conversation(rng: random.Random) -> Conversation:
    """Mostly one question; sometimes a system prompt, sometimes earlier turns, sometimes both."""
    problem = sample_any(rng)
    system = system_prompt(rng) if rng.random() < 0.1 else ""
    turns = sample_turns(rng) if rng.random() < 0.1 else ()
    return Conversation(problem, system, turns)
