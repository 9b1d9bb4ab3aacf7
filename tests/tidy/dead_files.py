"""Files that nothing uses: sources no CMakeLists.txt names, headers nobody includes, documents nobody links to, broken links."""
import re

import tree


def check():
    cmake = " ".join("\n".join(tree.lines(f)) for f in tree.written() if f.endswith("CMakeLists.txt"))
    included = {target for f in tree.cxx() for _, target, _ in tree.includes(f)}
    for path in tree.cxx():
        name = path.rsplit("/", 1)[-1]
        if path.endswith((".cc", ".cu")) and not re.search(r"[\s/(]" + re.escape(name), cmake):
            yield f"{path}: no CMakeLists.txt names it"
        if path.endswith((".h", ".cuh")) and path not in included:
            yield f"{path}: nothing includes it"
        own = path[:-3] + ".h"
        if path.endswith(".cc") and (tree.ROOT / own).is_file():
            first = next((t for _, t, _ in tree.includes(path)), None)
            if first != own:
                yield f"{path}: includes {first} first; its own header comes first, to prove that it is self-contained"
    yield from check_links()
    yield from check_scripts()


def check_links():
    for path in tree.written():
        if not path.endswith(".md"):
            continue
        folder = (tree.ROOT / path).parent
        for number, line in enumerate(tree.lines(path), 1):
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
                if not target.startswith(("http", "mailto:")) and not (folder / target).exists():
                    yield f"{path}:{number}: link to {target}, which is not there"


def check_scripts():
    everything = {f: "\n".join(tree.lines(f)) for f in tree.written()
                  if f.endswith((".txt", ".md", ".sh", ".py", ".cmake")) or f in ("Makefile", ".ci/run")}
    for path in tree.written():
        if path.endswith((".sh", ".py")):
            stem = path.rsplit("/", 1)[-1]
            module = stem.rsplit(".", 1)[0]
            if not any(stem in text or re.search(rf"\bimport {module}\b|\bfrom \.?{module}\b|import .*\b{module}\b", text)
                       for other, text in everything.items() if other != path):
                yield f"{path}: nothing calls or mentions it"


def self_test():
    pass
