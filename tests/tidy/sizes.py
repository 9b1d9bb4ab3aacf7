"""Sizes that keep code readable: lines, files, functions, parameters, interfaces, folders."""
import collections
import re

import tree

FILE_LINES = 500
FILE_LINES_RELAXED = 1000  # kernels and tests
FUNCTION_LINES = 70
INTERFACE_METHODS = 5
FOLDER_FILES = 14
COLUMNS = 100
PARAMETERS = 5


def file_limit(path):
    return FILE_LINES_RELAXED if path.startswith(("tests/", "kernels/")) else FILE_LINES


def functions(path):
    """(line, name, length, number of parameters). Relies on clang-format: a body ends with the closing brace at the indentation of its first line."""
    text = tree.lines(path)
    opening = re.compile(r"^( {0,4})(?!namespace|extern|class|struct|enum|union|#|//|else|if|for|while|switch|do|return|case|public|private|template|\}|\))[A-Za-z_~:].*$")
    i = 0
    while i < len(text):
        match = opening.match(text[i])
        if not match or "(" not in text[i] or text[i].rstrip().endswith(";"):
            i += 1
            continue
        indent = match.group(1)
        j, head = i, text[i]
        while j + 1 < len(text) and not text[j].rstrip().endswith(("{", ";", "}")) and j - i < 15:
            j += 1
            head += " " + text[j].strip()
        if not text[j].rstrip().endswith("{") or "=" in head.split("(", 1)[0]:
            i += 1
            continue
        end = next((k for k in range(j + 1, len(text)) if re.match(indent + r"\}", text[k])), j)
        yield i + 1, head.split("(", 1)[0].split()[-1], end - i + 1, count_parameters(head)
        i = j + 1


def count_parameters(head):
    depth, commas, inside = 0, 0, ""
    for char in head[head.index("("):]:
        if char in "([{<":
            depth += 1
        elif char in ")]}>":
            depth -= 1
            if depth == 0:
                break
        elif char == "," and depth == 1:
            commas += 1
        inside += char
    return commas + 1 if inside.strip("( \n") else 0


def interfaces(path):
    """(line, name, pure virtual methods) of each class."""
    name, line, methods = None, 0, 0
    for number, text in enumerate(tree.lines(path), 1):
        match = re.match(r"^(?:class|struct) (\w+)", text)
        if match and not text.endswith(";"):
            name, line, methods = match.group(1), number, 0
        if re.search(r"\) (const )?= 0;", text) or re.match(r"^\s+.*= 0;$", text) and "virtual" in "".join(
                tree.lines(path)[max(0, number - 3):number]) and ")" in text:
            methods += 1
        if text.startswith("};") and name:
            yield line, name, methods
            name = None


def check():
    folders = collections.Counter()
    for path in tree.written():
        folders[path.rsplit("/", 1)[0] if "/" in path else "."] += 1
    for folder, count in folders.items():
        if count > FOLDER_FILES and not folder.startswith("."):
            yield f"{folder}: {count} files, limit {FOLDER_FILES}: split by idea"
    for path in tree.written():
        if not path.endswith((".h", ".cc", ".cu", ".cuh", ".rs", ".py", ".sh")):
            continue
        length, limit = len(tree.lines(path)), file_limit(path)
        if length > limit:
            yield f"{path}: {length} lines, limit {limit}: split by idea"
    for path in tree.cxx():
        for number, line in enumerate(tree.lines(path), 1):
            if len(line) > COLUMNS and "http" not in line and not line.lstrip().startswith("//"):
                yield f"{path}:{number}: {len(line)} columns, limit {COLUMNS}"
        for number, name, length, parameters in functions(path):
            if length > FUNCTION_LINES:
                yield f"{path}:{number}: {name} has {length} lines, limit {FUNCTION_LINES}"
            if parameters > PARAMETERS and not path.startswith("tests/"):
                yield f"{path}:{number}: {name} has {parameters} parameters, limit {PARAMETERS}: use a struct"
        for number, name, methods in interfaces(path):
            if methods > INTERFACE_METHODS:
                yield f"{path}:{number}: {name} has {methods} methods, limit {INTERFACE_METHODS}"


def self_test():
    assert count_parameters("void F(int a, std::map<int, int> b, int c) {") == 3
    assert count_parameters("void F() {") == 0
