"""What the nano model says to all but arithmetic: small talk, and that it can not do the rest."""

import random

from data.arithmetic import (
    ABILITIES,
    EXPRESSIONS,
    OPERAND_DIGITS_MAX,
    SYMBOLS,
    Problem,
    casual,
    number,
    operand,
)

_ASKING = ("Who", "What", "How", "Are")
# (what the user may say, the thought, the answer)
_CHAT = (
    (
        ("Hello", "Hi", "Hey", "Hello there", "Good morning", "Good evening", "Hi there",
         "Hey there"),
        "a greeting",
        f"Hello! I am a nano reasoning model. {ABILITIES}",
    ),
    (
        ("Who are you", "What are you", "What is your name", "Introduce yourself",
         "Tell me who you are", "Are you a robot", "Tell me about yourself"),
        "a question about me",
        f"I am a nano model of the DeepSeek-V3 architecture, trained on a CPU. {ABILITIES}",
    ),
    (
        ("What can you do", "What do you know", "Help", "How can you help me",
         "What are you good at", "What can I ask you", "What else can you do"),
        "a question about my tasks",
        ABILITIES,
    ),
    (
        ("How are you", "How are you doing", "How do you do", "How is it going"),
        "small talk",
        "I am well, and ready for a sum.",
    ),
    (
        ("Thanks", "Thank you", "Great", "Well done", "Good", "Ok", "Okay", "Cool",
         "Thank you very much"),
        "thanks",
        "You are welcome.",
    ),
    (
        ("Bye", "Goodbye", "See you", "Good night", "See you later"),
        "a farewell",
        "Goodbye!",
    ),
)
_MARKS = ("", "", ".", "!", "?")


def chat(rng: random.Random) -> Problem:
    """A greeting, a question about the model, thanks or a farewell."""
    questions, thought, answer = rng.choice(_CHAT)
    question = rng.choice(questions)
    asks = question.startswith(_ASKING)
    question += "?" if asks and rng.random() < 0.8 else rng.choice(_MARKS)
    if rng.random() < 0.3:
        question = question.lower()
    return Problem("chat", question, thought, answer)


_NOUNS = tuple((
    "weather capital France music poem story cat dog house river moon sun history language "
    "computer program recipe city country president ocean whale color money love life time day "
    "year book song movie game car food water tree king war science joke letter world people "
    "name number code "
).split())
_VERBS = tuple((
    "write tell explain translate make find show draw describe read play sort reverse summarize "
    "sing cook buy fix open guess "
).split())
_SENTENCES = (
    "What is the {noun} of {noun}?", "Tell me a {noun}.", "Tell me about the {noun}.",
    "Why is the {noun} {noun}?", "Write a {noun} about a {noun}.", "Can you {verb} a {noun}?",
    "{verb} the {noun}.", "How do I {verb} a {noun}?", "Who made the {noun}?", "Where is {noun}?",
    "Please {verb} this {noun} for me.", "What is {noun}?",
    "When did the {noun} {verb} the {noun}?", "I like {noun} and {noun}.", "Do you {verb} {noun}?",
    "{noun}", "How many {noun} are in the {noun}?", "Give me {small} {noun}.",
    "My {noun} has {small} {noun}.",
)


def _noun(rng):
    """A word, or a made-up one: unknown words are to be met with the same answer as known ones."""
    if rng.random() < 0.6:
        return rng.choice(_NOUNS)
    syllables = rng.randrange(1, 4)
    return "".join(
        rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") + rng.choice(("", "n", "s", "r", "t"))
        for _ in range(syllables)
    )


def _beyond(rng):
    """Looks familiar and is not: division, long factors or numbers, fractions, three terms."""
    kind = rng.randrange(5)
    a, b = operand(rng), operand(rng)
    if kind == 0:
        expression = f"{a} {rng.choice(('/', '/', '%', '^', 'divided by'))} {b}"
    elif kind == 1:
        a, b = number(rng, rng.randrange(2, 5)), number(rng, rng.randrange(2, 5))
        expression = f"{a} {rng.choice(SYMBOLS['mul'] + ('times',))} {b}"
    elif kind == 2:
        a = number(rng, rng.randrange(OPERAND_DIGITS_MAX + 1, 9))
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        expression = f"{a} {rng.choice('+-*')} {b}"
    elif kind == 3:
        a = rng.choice((f"-{a}", f"{a}.{rng.randrange(1, 100)}"))
        expression = f"{a} {rng.choice('+-*')} {b}"
    else:
        expression = f"{a} {rng.choice('+-*')} {b} {rng.choice('+-*')} {operand(rng)}"
    if rng.random() < 0.3:
        expression = expression.replace(" ", "")
    return casual(rng, rng.choice(EXPRESSIONS).format(expression))


def filler(rng: random.Random) -> str:
    """A sentence about nothing in particular."""
    text = rng.choice(_SENTENCES)
    while "{" in text:
        text = text.replace("{noun}", _noun(rng), 1)
        text = text.replace("{verb}", rng.choice(_VERBS), 1)
        text = text.replace("{small}", str(rng.randrange(100)), 1)
    return text[0].upper() + text[1:]


def other(rng: random.Random) -> Problem:
    """Whatever is not one of the tasks. Saying so is worth more than a confident wrong answer."""
    question = _beyond(rng) if rng.random() < 0.5 else casual(rng, filler(rng))
    answer = f"I can not do that. {ABILITIES}"
    return Problem("other", question, "not one of my tasks", answer)
