"""Makes and checks tests/golden: tiny models with what transformers computes for them.

    python golden.py write [NAME ...]     all, or those named; `nano` for models/nano
    python golden.py check                makes everything again elsewhere and compares

tests/golden/NAME/golden.json holds prompts with the oracle's most probable next tokens, keyed by
the digest of the checkpoint (tests/golden/NAME itself, or models/nano).
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

import checkpoints
from oracle import Oracle
from recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
NANO = "nano"
STORED_TOP = 30  # more than is compared: a token that is not even among these is plainly wrong
CONTINUATION = 3
PROMPT_LENGTHS = (1, 6, 40, 65, 130)  # a KV block holds 64 tokens
NANO_CONTINUATION = 12
NANO_QUESTIONS = ("What is 58 + 67?", "Hello!", "What is 34 * 6?", "Which is larger, 81 or 18?")
# Between two runs of the float32 oracle: other machines sum in another order.
TOLERANCE = 2e-4
_WHOLE_FILE_BYTES_MAX = 64 << 20


def digest(directory: Path) -> str:
    """The digest of worker/model/checkpoint.h, for checkpoints whose files are hashed whole."""
    sha = hashlib.sha256()

    def add(piece: bytes):
        sha.update(len(piece).to_bytes(8, "little") + piece)

    add(b"baleen checkpoint 1")
    for name in ("config.json", "generation_config.json"):
        add(name.encode())
        if (directory / name).exists():
            add((directory / name).read_bytes())
    single = directory / "model.safetensors"
    for path in [single] if single.exists() else sorted(directory.glob("*.safetensors")):
        if path.stat().st_size > _WHOLE_FILE_BYTES_MAX:
            sys.exit(f"{path}: larger than {_WHOLE_FILE_BYTES_MAX} bytes")
        add(path.name.encode())
        add(path.read_bytes())
    return sha.hexdigest()


def random_prompts(vocabulary: int, seed: int) -> list:
    """(tokens, length of the prompt in them): the rest is what a decode rank would be given."""
    rng = random.Random(seed)
    return [
        ([rng.randrange(vocabulary) for _ in range(n + CONTINUATION)], n) for n in PROMPT_LENGTHS
    ]


def nano_prompts(oracle: Oracle, directory: Path) -> list:
    """Questions in the chat template, each with the beginning of the model's own greedy answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompts = []
    for question in NANO_QUESTIONS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        length = len(tokens)
        for _ in range(NANO_CONTINUATION):
            tokens.append(int(oracle.exact_log_probs(tokens)[-1].argmax()))
        prompts.append((tokens, length))
    return prompts


def describe(oracle: Oracle, directory: Path, model: str, prompts: list) -> dict:
    """The content of golden.json."""
    positions = [list(range(length - 1, len(tokens))) for tokens, length in prompts]
    error = oracle.bfloat16_error(zip((tokens for tokens, _ in prompts), positions))
    described = []
    for (tokens, length), rows in zip(prompts, positions):
        best = oracle.exact_log_probs(tokens)[rows].topk(
            min(STORED_TOP, oracle.config["vocab_size"])
        )
        described.append(
            {
                "tokens": tokens,
                "prompt_tokens": length,
                # After the prompt, then after each further token: [id, log-probability].
                "top": [
                    [[i, round(p, 6)] for i, p in zip(ids, values)]
                    for ids, values in zip(best.indices.tolist(), best.values.tolist())
                ],
            }
        )
    return {
        "model": model,
        "digest": digest(directory),
        "oracle": f"{oracle.name}, float32",
        "bfloat16_error": {"largest": error.largest, "rms": error.rms},
        "prompts": described,
    }


def make(name: str, target: Path):
    """Writes target/golden.json, and the checkpoint beside it unless it is models/nano."""
    target.mkdir(parents=True, exist_ok=True)
    if name == NANO:
        model, directory = "models/nano", ROOT / "models" / "nano"
        oracle = Oracle(directory)
        prompts = nano_prompts(oracle, directory)
    else:
        model, directory = f"tests/golden/{name}", target
        for old in target.iterdir():
            old.unlink()
        checkpoints.write(RECIPES[name], directory)
        oracle = Oracle(directory)
        prompts = random_prompts(oracle.config["vocab_size"], RECIPES[name].seed)
    golden = describe(oracle, directory, model, prompts)
    text = json.dumps(golden, separators=(",", ":"))
    (target / "golden.json").write_text(
        text.replace('"prompts"', '\n"prompts"') + "\n", encoding="utf-8"
    )
    error = golden["bfloat16_error"]
    size = sum(path.stat().st_size for path in target.iterdir())
    print(
        f"{name}: {size / 1024:.0f} kB, bfloat16 error "
        f"largest {error['largest']:.4f} rms {error['rms']:.4f}",
        flush=True,
    )


def differences(name: str, committed: Path, fresh: Path):
    """Yields what is not equal, or not close, between two goldens."""
    if name != NANO:
        for path in sorted(fresh.glob("*.safetensors")):
            old, new = load_file(committed / path.name), load_file(path)
            if old.keys() != new.keys() or any(not old[key].equal(new[key]) for key in old):
                yield f"{path.name} holds other weights"
    old = json.loads((committed / "golden.json").read_text(encoding="utf-8"))
    new = json.loads((fresh / "golden.json").read_text(encoding="utf-8"))
    if old["digest"] != digest(ROOT / old["model"]):
        yield f"golden.json is of another checkpoint than {old['model']}: golden.py write {name}"
        return
    for index, (a, b) in enumerate(zip(old["prompts"], new["prompts"], strict=True)):
        if a["tokens"] != b["tokens"]:
            yield f"prompt {index}: other tokens"
            continue
        for row, (top_a, top_b) in enumerate(zip(a["top"], b["top"], strict=True)):
            known = dict(map(tuple, top_b))
            worst = max(
                abs(p - known.get(i, p if p < top_b[-1][1] + TOLERANCE else 0.0)) for i, p in top_a
            )
            if worst > TOLERANCE:
                yield f"prompt {index}, row {row}: log-probabilities differ by {worst:.1e}"


def check(names) -> bool:
    """Makes each golden again in a scratch folder and compares it with the committed one."""
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            make(name, Path(scratch) / name)
            found = list(differences(name, GOLDEN / name, Path(scratch) / name))
            good = good and not found
            for line in found:
                print(f"{name}: {line}", file=sys.stderr)
    return good


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=("write", "check"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join([*RECIPES, NANO])}; default all"
    )
    arguments = parser.parse_args()
    names = arguments.names or [*RECIPES, NANO]
    if unknown := [name for name in names if name not in RECIPES and name != NANO]:
        parser.error(f"unknown: {', '.join(unknown)}")
    if arguments.command == "write":
        for name in names:
            make(name, GOLDEN / name)
    elif not check(names):
        sys.exit(1)


if __name__ == "__main__":
    main()
