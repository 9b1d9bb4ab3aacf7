"""Proves that training survives a kill: a resumed run ends with the bits of an undisturbed one.

    python check_resume.py

Runs `train.py --smoke` once in peace and once killed (SIGKILL) in the middle of each stage, then
compares the two exported checkpoints byte by byte. Takes about a minute; exit status 1 and a reason
if they differ.
"""

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).with_name("train.py")
WAIT_S = 300


def start(out):
    """A smoke run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, TRAIN, "--out", out, "--smoke"], stdout=subprocess.DEVNULL
    )


def run(out):
    """A smoke run to its end."""
    if start(out).wait(WAIT_S) != 0:
        sys.exit(f"train.py --smoke --out {out} failed")


def kill_after_first_checkpoint(out, stage):
    """Starts (or resumes) the run and kills it as soon as the stage has written a checkpoint."""
    process = start(out)
    deadline = time.monotonic() + WAIT_S
    while not (out / f"{stage}.pt").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            sys.exit(f"the run ended before stage {stage} wrote a checkpoint")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait(WAIT_S) != -signal.SIGKILL:
        sys.exit(f"the run ended before it could be killed in stage {stage}")


def digest(out):
    """Of everything that was exported."""
    files = sorted((out / "nano").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main():
    """Two runs, one undisturbed; the same files must come out."""
    with tempfile.TemporaryDirectory() as directory:
        undisturbed, killed = Path(directory) / "undisturbed", Path(directory) / "killed"
        run(undisturbed)
        for stage in ("trunk", "mtp"):
            kill_after_first_checkpoint(killed, stage)
        run(killed)
        expected, found = digest(undisturbed), digest(killed)
        differing = [name for name in expected if expected[name] != found.get(name)]
        if differing or not expected:
            sys.exit(f"resumed run differs in {differing}")
    print("killed in both stages and resumed: same bytes in", ", ".join(expected))


if __name__ == "__main__":
    main()
