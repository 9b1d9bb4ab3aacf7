"""Ten thousand strings by seed, and digests of their token ids: cases for text_golden.py.

tests/router/text/text_strings.h makes the same strings from the same pieces. A digest is FNV-1a, of 64 bits, over the ids of a block of strings,
each string's closed by -1: the block that differs says where to look.
"""
MASK = (1 << 64) - 1
SEED = 5
COUNT = 10_000
BLOCK = 100


class Sequence:
    """Knuth's linear congruential generator; its upper bits."""

    def __init__(self, seed):
        self.state = seed

    def below(self, end):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 33) % end


def code_point(sequence):
    code = sequence.below(0x3000) if sequence.below(2) else sequence.below(0x110000)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def string(sequence, pieces):
    kind = sequence.below(20)
    if kind == 0:  # a very long word
        piece = "".join(c for c in pieces[sequence.below(len(pieces))] if c not in " \t\n\r")
        return piece * (1 + sequence.below(40))
    parts = []
    for _ in range(1 + sequence.below(24)):
        what = sequence.below(10)
        if what == 0:
            parts.append(code_point(sequence))
        elif what == 1:
            parts.append(code_point(sequence) * (1 + sequence.below(30)))
        elif what == 2:
            parts.append(" \t\n\r"[sequence.below(4)] * (1 + sequence.below(12)))
        elif what == 3:
            parts.append(str(sequence.below(10_000_000)))
        else:
            parts.append(pieces[sequence.below(len(pieces))])
    return "".join(parts)


def strings(pieces):
    sequence = Sequence(SEED)
    return [string(sequence, pieces) for _ in range(COUNT)]


def digests(tokenizer, texts):
    result, digest = [], 0
    for index, text in enumerate(texts):
        if index % BLOCK == 0:
            digest = 0xCBF29CE484222325
        for token in [*tokenizer.encode(text, add_special_tokens=False).ids, -1]:
            for byte in (token & 0xFFFFFFFF).to_bytes(4, "little"):
                digest = ((digest ^ byte) * 0x100000001B3) & MASK
        if index % BLOCK == BLOCK - 1:
            result.append(f"{digest:016x}")
    return result
