"""Arithmetic problems with worked solutions: everything the nano model ever learns to compute.

A problem is a question, the thought that solves it digit by digit, and the answer. All three come
from one random draw, so any number of problems can be made and every answer can be checked.

What is held out is held out by operands, not by wording: a pair of numbers that `held_out` names
is shown to the model in no phrasing and no order, so a right answer to it was computed, not
recalled.
"""

import random
import zlib
from dataclasses import dataclass

PLACES = ("ones", "tens", "hundreds", "thousands")
OPERAND_DIGITS_MAX = len(PLACES)
HELD_OUT_ONE_IN = 25
# The question of the quick start, kept out of training: the first answer anyone sees is honest.
SHOWCASE = ("add", 347, 589)

ABILITIES = "I add, subtract, multiply by a digit and compare numbers of up to four digits."


@dataclass(frozen=True)
class Problem:
    """One question with its worked solution; `operands` is empty where there is no arithmetic."""

    task: str
    question: str
    thought: str
    answer: str
    operands: tuple = ()


def held_out(task: str, a: int, b: int) -> bool:
    """Whether this operand pair, in either order, is reserved for measuring."""
    low, high = sorted((a, b))
    if (task, low, high) == SHOWCASE:
        return True
    return zlib.crc32(f"{task}:{low}:{high}".encode()) % HELD_OUT_ONE_IN == 0


def number(rng: random.Random, digits: int) -> int:
    """A number of that many digits, now and then of 0s and 9s, which make long carry chains."""
    if rng.random() < 0.15:
        alphabet = rng.choice(("09", "0", "9", "01", "89", "5"))
        text = "".join(rng.choice(alphabet) for _ in range(digits))
        if str(int(text)) == text:
            return int(text)
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def operand(rng: random.Random) -> int:
    """A number of one to four digits, the longer ones more often."""
    return number(rng, rng.choices(range(1, OPERAND_DIGITS_MAX + 1), weights=(1, 2, 4, 5))[0])


# ---------------------------------------------------------------------------------- phrasings

EXPRESSIONS = (
    "What is {}?", "What is {}?", "What is {}?", "What is {}?", "What's {}?", "Calculate {}.",
    "Compute {}.", "{} = ?", "{} =", "{}", "{}?", "How much is {}?", "Solve {}.",
    "Please compute {}.", "Can you calculate {}?", "Tell me {}.",
)
SYMBOLS = {"add": ("+",), "sub": ("-",), "mul": ("*", "*", "x", "×")}
_WORDS = {"add": "plus", "sub": "minus", "mul": "times"}
_SENTENCES = {
    "add": (
        "Add {a} and {b}.", "What is the sum of {a} and {b}?", "Please add {a} and {b}.",
        "Add {b} to {a}.", "What do you get if you add {a} and {b}?",
    ),
    "sub": ("Subtract {b} from {a}.", "What is {a} take away {b}?", "Take {b} from {a}."),
    "mul": (
        "Multiply {a} by {b}.", "What is the product of {a} and {b}?", "Multiply {a} and {b}.",
        "Please multiply {a} by {b}.",
    ),
}


def casual(rng: random.Random, text: str) -> str:
    """As a hurried person types it: lower case, no closing mark, a stray blank at the end."""
    if rng.random() < 0.25:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.2 and text[-1] in "?.":
        text = text[:-1].rstrip()
    if rng.random() < 0.05:
        text += rng.choice((" ", "\n"))
    return text


def _ask(rng, task, a, b):
    """A question for `a` and `b` in one of many wordings, `What is A + B?` more often than any."""
    draw = rng.random()
    if draw < 0.35:
        return f"What is {a} {SYMBOLS[task][0]} {b}?"
    if draw < 0.55:
        return casual(rng, rng.choice(_SENTENCES[task]).format(a=a, b=b))
    if draw < 0.7:
        expression = f"{a} {_WORDS[task]} {b}"
    else:
        space = rng.choice(("", " ", " "))
        expression = f"{a}{space}{rng.choice(SYMBOLS[task])}{space}{b}"
    return casual(rng, rng.choice(EXPRESSIONS).format(expression))


# ---------------------------------------------------------------------------------- arithmetic


def _digits_reversed(value, width):
    return [int(digit) for digit in reversed(str(value).zfill(width))]


def _add_lines(a, b):
    width = max(len(str(a)), len(str(b)))
    lines = [f"{str(a).zfill(width)}+{str(b).zfill(width)}"]
    carry = 0
    for place, x, y in zip(PLACES, _digits_reversed(a, width), _digits_reversed(b, width)):
        total = x + y + carry
        lines.append(f"{place}: {x}+{y}+{carry}={total}, carry {total // 10}")
        carry = total // 10
    return lines + [f"together: {a + b}"]


def _subtract_lines(a, b):
    """Borrowing from the ones upwards; needs a >= b. Leading zeros go only in the answer."""
    width = len(str(a))
    lines = [f"{a}-{str(b).zfill(width)}"]
    borrow = 0
    for place, x, y in zip(PLACES, _digits_reversed(a, width), _digits_reversed(b, width)):
        x = x + 10 if x - y - borrow < 0 else x
        digit = x - y - borrow
        lines.append(f"{place}: {x}-{y}-{borrow}={digit}, borrow {x // 10}")
        borrow = x // 10
    return lines + [f"together: {str(a - b).zfill(width)}"]


def _multiply_lines(a, digit):
    width = len(str(a))
    lines = [f"{a}*{digit}"]
    carry = 0
    for place, x in zip(PLACES, _digits_reversed(a, width)):
        product = x * digit
        total = product + carry
        summed = f"{product}+{carry}={total}, carry {total // 10}"
        lines.append(f"{place}: {x}*{digit}={product}, {summed}")
        carry = total // 10
    return lines + [f"together: {str(a * digit).zfill(width)}"]


def _sign(a, b):
    return "=" if a == b else "<" if a < b else ">"


def _compare_line(a, b):
    """The one line that decides: lengths first, then digit by digit from the left."""
    text_a, text_b = str(a), str(b)
    if len(text_a) != len(text_b):
        lengths = f"{a} has {len(text_a)} digits, {b} has {len(text_b)}"
        return f"{lengths}: {a}{_sign(a, b)}{b}"
    pairs = []
    for x, y in zip(text_a, text_b):
        pairs.append(f"{x}{_sign(x, y)}{y}")
        if x != y:
            break
    return f"{', '.join(pairs)}: {a}{_sign(a, b)}{b}"


def add(rng: random.Random) -> Problem:
    """The sum of two operands, from the ones upwards with carry."""
    a, b = operand(rng), operand(rng)
    thought = "\n".join(_add_lines(a, b))
    return Problem("add", _ask(rng, "add", a, b), thought, f"{a} + {b} = {a + b}", (a, b))


def subtract(rng: random.Random) -> Problem:
    """A difference, one time in five of any sign; the thought first finds out which is larger."""
    a = operand(rng)
    draw = rng.random()
    if draw < 0.15:
        b = min(max(0, a + rng.randrange(-12, 13)), 10**OPERAND_DIGITS_MAX - 1)
    else:
        b = operand(rng)
        if draw < 0.8:
            a, b = max(a, b), min(a, b)
    lines = [_compare_line(a, b)]
    if a < b:
        lines += [f"negative: {b}-{a}"] + _subtract_lines(b, a)
    else:
        lines += _subtract_lines(a, b)
    question = _ask(rng, "sub", a, b)
    return Problem("sub", question, "\n".join(lines), f"{a} - {b} = {a - b}", (a, b))


def multiply(rng: random.Random) -> Problem:
    """A number times a digit. The digit may be asked first; the thought always puts it second."""
    a, digit = operand(rng), rng.randrange(0, 10)
    first, second = (digit, a) if rng.random() < 0.25 else (a, digit)
    number, factor = (first, second) if second < 10 else (second, first)
    thought = "\n".join(_multiply_lines(number, factor))
    question = _ask(rng, "mul", first, second)
    answer = f"{first} * {second} = {first * second}"
    return Problem("mul", question, thought, answer, (a, digit))


_LARGER = ("larger", "larger", "bigger", "greater")
_COMPARISONS = (
    "Which is {word}, {a} or {b}?", "Which is {word}, {a} or {b}?", "Which is {word}: {a} or {b}?",
    "Which number is {word}, {a} or {b}?", "What is {word}, {a} or {b}?", "Compare {a} and {b}.",
)


def compare(rng: random.Random) -> Problem:
    """Two numbers, often alike: equal, one digit apart, or of the same length."""
    a = operand(rng)
    draw = rng.random()
    if draw < 0.1:
        b = a
    elif draw < 0.35:
        digits = list(str(a))
        digits[rng.randrange(len(digits))] = rng.choice("0123456789")
        b = int("".join(digits))
    elif draw < 0.7:
        b = number(rng, len(str(a)))
    else:
        b = operand(rng)
    wants_larger = rng.random() < 0.5
    word = rng.choice(_LARGER) if wants_larger else "smaller"
    wording = rng.choice(_COMPARISONS)
    question = casual(rng, wording.format(word=word, a=a, b=b))
    if a == b:
        answer = "They are equal."
    elif wording.startswith("Compare"):
        answer = f"{a} is {'larger' if a > b else 'smaller'} than {b}."
    else:
        answer = f"{max(a, b) if wants_larger else min(a, b)} is {word}."
    return Problem("cmp", question, _compare_line(a, b), answer, (a, b))
