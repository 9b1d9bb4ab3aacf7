"""Problems by task: which there are, how often each is trained on, what is kept for measuring."""

import random

from data.arithmetic import Problem, add, compare, held_out, multiply, subtract
from data.small_talk import chat, other

_MAKERS = {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "cmp": compare,
    "chat": chat,
    "other": other,
}
ARITHMETIC = ("add", "sub", "mul", "cmp")
TASK_WEIGHTS = {"add": 0.25, "sub": 0.28, "mul": 0.22, "cmp": 0.14, "chat": 0.04, "other": 0.07}


def sample(rng: random.Random, task: str, want_held_out: bool = False) -> Problem:
    """A problem of `task` with operands held out, or not; small talk has none to hold out."""
    while True:
        problem = _MAKERS[task](rng)
        if not problem.operands or held_out(task, *problem.operands) == want_held_out:
            return problem


def sample_any(rng: random.Random) -> Problem:
    """A problem for training: the task drawn by weight, the operands never held out."""
    return sample(rng, rng.choices(tuple(TASK_WEIGHTS), tuple(TASK_WEIGHTS.values()))[0])


def held_out_set(task: str, count: int, seed: int) -> list:
    """`count` held-out problems of one arithmetic task, no operand pair twice."""
    rng = random.Random(f"{seed}/{task}")
    chosen = {}
    while len(chosen) < count:
        problem = sample(rng, task, want_held_out=True)
        chosen.setdefault(tuple(sorted(problem.operands)), problem)
    return list(chosen.values())
