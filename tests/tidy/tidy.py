#!/usr/bin/env python3
"""The style of the project, checked by machine. Run by ctest and by `make lint`.

usage: tidy.py [--fix-format] [CHECK ...]     checks: includes sizes text dead format
"""
import sys

import dead_files
import format as formatting
import include_rules
import sizes
import text_rules
import tree

CHECKS = {"includes": include_rules, "sizes": sizes, "text": text_rules, "dead": dead_files,
          "format": formatting}


def main(arguments):
    if arguments == ["--fix-format"]:
        formatting.fix()
        print(f"formatted {len(tree.cxx())} files")
        return 0
    unknown = [a for a in arguments if a not in CHECKS]
    if unknown:
        print(__doc__, file=sys.stderr)
        return 2
    bad = 0
    for name in arguments or CHECKS:
        CHECKS[name].self_test()
        found = list(CHECKS[name].check())
        bad += len(found)
        for line in found:
            print(f"{name}: {line}")
        print(f"{name}: {len(found)} violations in {len(tree.written())} files")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
