"""The files under version control, read once, for every check."""
import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Not written by hand, or data.
GENERATED = ("models/", "tests/golden/", "tests/fuzz/corpus/", "text/crate/Cargo.lock")


@functools.lru_cache(None)
def files():
    """Paths from the root: tracked files, and new ones that git does not ignore."""
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                         check=True, capture_output=True, text=True).stdout
    return [f for f in sorted(set(out.splitlines())) if (ROOT / f).is_file()]


def written():
    """Files that people write."""
    return [f for f in files() if not f.startswith(GENERATED)]


def cxx():
    return [f for f in written() if f.endswith((".h", ".cc", ".cu", ".cuh"))]


@functools.lru_cache(None)
def lines(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines()


def includes(path):
    """(line number, included path, is it quoted) of a C++ file."""
    for number, line in enumerate(lines(path), 1):
        parts = line.split()
        if len(parts) >= 2 and parts[0] == "#include":
            yield number, parts[1].strip('<>"'), parts[1].startswith('"')
