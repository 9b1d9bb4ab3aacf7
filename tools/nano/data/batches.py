"""Training batches: conversations packed into rows of one fixed length.

A batch is a pure function of (seed, step, rank). Nothing about the data has to be saved to resume a
run, and two runs with the same seed see the same tokens in the same order.
"""

import random
from dataclasses import dataclass

import torch

from data.conversation import sample_conversation
from data.tokenizer import PAD_ID, encode

ROW_TOKENS = 320
_IGNORE = -100
# A row is closed when this many conversations in a row found no room anywhere.
_MISSES_MAX = 8


@dataclass
class Batch:
    """Packed rows; position i of `labels` is the token after `ids[i]`, or -100 outside a reply."""

    ids: torch.Tensor  # int64 [rows, ROW_TOKENS + 1]: the inputs and, one further, the last label
    labels: torch.Tensor  # int64 [rows, ROW_TOKENS]
    documents: (
        torch.Tensor
    )  # int64 [rows, ROW_TOKENS]: which conversation of the row, -1 is padding


def pack(conversations: list, rows: int) -> Batch:
    """Lays conversations, given as (row, prompt ids, reply ids), side by side in their rows."""
    ids = torch.full((rows, ROW_TOKENS + 1), PAD_ID)
    labels = torch.full((rows, ROW_TOKENS + 1), _IGNORE)
    documents = torch.full((rows, ROW_TOKENS + 1), -1)
    used = [0] * rows
    for number, (row, prompt, reply) in enumerate(conversations):
        start, middle, end = (
            used[row],
            used[row] + len(prompt),
            used[row] + len(prompt) + len(reply),
        )
        ids[row, start:end] = torch.tensor(prompt + reply)
        labels[row, middle - 1 : end - 1] = torch.tensor(reply)
        documents[row, start:end] = number
        used[row] = end
    return Batch(ids, labels[:, :-1], documents[:, :-1].contiguous())


def make_batch(tokenizer, rows: int, seed: int, step: int, rank: int) -> Batch:
    """The batch of one process at one step: conversations drawn until the rows are full."""
    rng = random.Random(f"{seed}/{step}/{rank}")
    free = [ROW_TOKENS + 1] * rows
    placed, misses = [], 0
    while misses < _MISSES_MAX:
        prompt, reply = encode(tokenizer, sample_conversation(rng))
        length = len(prompt) + len(reply)
        row = next((index for index in range(rows) if free[index] >= length), None)
        if row is None:
            misses += 1
            continue
        free[row] -= length
        placed.append((row, prompt, reply))
        misses = 0
    return pack(placed, rows)


def pack_all(encoded: list) -> Batch:
    """All of these conversations, first fit, in as many rows as they need."""
    free, placed = [], []
    for prompt, reply in encoded:
        length = len(prompt) + len(reply)
        row = next((index for index, room in enumerate(free) if room >= length), None)
        if row is None:
            free.append(ROW_TOKENS + 1)
            row = len(free) - 1
        free[row] -= length
        placed.append((row, prompt, reply))
    return pack(placed, len(free))
