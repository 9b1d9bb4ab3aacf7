"""Words and calls that have no place here, and the reason for each."""
import re

import tree

EVERYWHERE = [
    (r"\b(TODO|FIXME|XXX|HACK)\b", "finish it, or write an issue"),
    (r"(?<![\w.])/(work|farm|root|home/\w+)/", "a path of one machine"),
]
CXX = [
    (r"\busing namespace\b", "names say where they come from"),
    (r"\bassert\(", "BALEEN_CHECK stays on in release builds"),
    (r"(?<![\w.])(?:std::)?(?:strcpy|strcat|sprintf|gets|atoi|atol|atof|strtok|rand|srand|system)\(",
     "unbounded, or silent on errors, or not thread-safe"),
    (r"\bthrow\b(?!\()", "operating errors are absl::Status"),
    (r"\bdynamic_cast<", "modes are data"),
    (r"\.detach\(\)", "every thread is joined"),
    (r"\bvolatile\b", "std::atomic says what is meant"),
    (r"\bgetenv\(", "options are parsed once, in main"),
    (r"\bstd::(?:cout|cerr)\b", "observability/base/log.h, or tools/cli"),
]
TESTS = [
    (r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)\(", "time is injected; wait for a condition"),
    (r"\bDISABLED_", "a test runs or is deleted"),
    (r"EXPECT_TRUE\(true\)|ASSERT_TRUE\(true\)", "a test can fail"),
]
# Rule -> the places where it is right, with the reason.
EXCEPTIONS = {
    r"\bgetenv\(": ("tools/cli/", "worker/ucx/", "worker/kv_transfer/ucx"),  # NO_COLOR; UCX's own settings
    r"\bstd::(?:cout|cerr)\b": ("tools/cli/", "observability/process/", "router/main.cc", "worker/main.cc", "kernels/bench/",
                                "worker/kv_transfer/bench/", "tests/"),
}
SPEAKS_OF_THE_RULES = ("tests/tidy/",)


def strip_comment(line):
    return re.sub(r"//.*$|\"(?:[^\"\\]|\\.)*\"", "", line)


def documented(path):
    own_header = path.rsplit(".", 1)[0] + ".h"
    return (tree.lines(path) or [""])[0].startswith("//") or (
        path != own_header and (tree.ROOT / own_header).is_file())


def check():
    for path in tree.written():
        if path.startswith(SPEAKS_OF_THE_RULES) or path == "LICENSE":
            continue
        is_cxx = path.endswith((".h", ".cc", ".cu", ".cuh"))
        for number, line in enumerate(tree.lines(path), 1):
            for pattern, why in EVERYWHERE:
                if re.search(pattern, line):
                    yield f"{path}:{number}: {pattern}: {why}"
            if not is_cxx:
                continue
            code = strip_comment(line)
            for pattern, why in CXX + (TESTS if path.startswith("tests/") else []):
                if re.search(pattern, code) and not path.startswith(EXCEPTIONS.get(pattern, ("\0",))):
                    yield f"{path}:{number}: {code.strip()}: {why}"
        if is_cxx and not documented(path):
            yield f"{path}:1: a file, or its header, opens with a comment that says what it is"
        if path.endswith(".h") and not any(l == "#pragma once" for l in tree.lines(path)):
            yield f"{path}:1: #pragma once is missing"


def self_test():
    assert strip_comment('int a = 1;  // throw') == "int a = 1;  "
    assert any(re.search(p, "  std::strcpy(a, b);") for p, _ in CXX)
    assert not any(re.search(p, "  int operand(x);") for p, _ in CXX)
