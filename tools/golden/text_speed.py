#!/usr/bin/env python3
"""Prints the MB/s of PyPI's tokenizers, on one thread, for each file: what router/text/bench compares with.

usage: text_speed.py TOKENIZER_JSON FILE...
"""
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402


def main():
    tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            tokenizer.encode(text, add_special_tokens=False)
            best = min(best, time.process_time() - start)
        print(len(text.encode()) / best / 1e6)


if __name__ == "__main__":
    main()
