"""clang-format, as .clang-format says; and rustfmt, which only rewrites: its versions differ from one Rust toolchain to the next."""
import shutil
import subprocess

import tree


def run(arguments):
    paths = tree.cxx()
    return subprocess.run(["clang-format", *arguments, *paths], cwd=tree.ROOT, capture_output=True, text=True)


def check():
    if not shutil.which("clang-format"):
        yield "clang-format is not installed: tools/setup/install.sh test"
        return
    if tree.cxx():
        stderr = run(["--dry-run", "--Werror"]).stderr
        for path in sorted({line.split(":", 1)[0] for line in stderr.splitlines() if "error:" in line}):
            yield f"{path}: not as clang-format wants it (make format)"


def fix():
    run(["-i"])
    if shutil.which("rustfmt"):
        crate = tree.ROOT / "text/crate"
        subprocess.run(["rustfmt", "--edition", "2021", *sorted(crate.glob("src/**/*.rs"))], cwd=crate, check=True)


def self_test():
    pass
