"""Makes and checks tests/golden: tiny models with what transformers computes for them.

    python golden.py write [NAME ...]     all, or those named; `nano` for models/nano
    python golden.py check                makes everything again elsewhere and compares

tests/golden/NAME/golden.json holds prompts with the oracle's most probable next tokens and chosen
experts, and the errors of transformers' own bfloat16 run, keyed by the digest of the checkpoint
(tests/golden/NAME itself, or models/nano). tests/worker/model/golden_file.h says what is what.
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
from oracle import TOP, Comparison, Error, Oracle
from recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
NANO = "nano"
STORED_TOP = 30  # more than is compared: a token that is not even among these is plainly wrong
CONTINUATION = 3
PROMPT_LENGTHS = (1, 6, 40, 65, 130)  # a KV block holds 64 tokens
NANO_CONTINUATION = 12
NANO_QUESTIONS = (
    "What is 347 + 589?",
    "Hello!",
    "What is 12 * 34?",
    "Which is larger, 81 or 18?",
    "What is 58 + 67?",
    "What is 34 * 6?",
)
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


def _row_error(rough, exact) -> list:
    """[largest, rms] over the oracle's TOP most probable tokens of a position."""
    error = Error()
    best = exact.topk(min(TOP, len(exact))).indices
    error.add((rough - exact)[best].tolist())
    return [round(error.largest, 6), round(error.rms, 6)]


def _describe_prompt(run: Comparison, tokens: list, length: int) -> dict:
    rows = range(length - 1, len(tokens))
    best = [run.exact[row].topk(min(STORED_TOP, run.exact.shape[-1])) for row in rows]
    return {
        "tokens": tokens,
        "prompt_tokens": length,
        "top": [
            [[i, round(p, 6)] for i, p in zip(top.indices.tolist(), top.values.tolist())]
            for top in best
        ],
        "bfloat16_forced": [_row_error(run.forced[row], run.exact[row]) for row in rows],
        "bfloat16_free": [_row_error(run.free[row], run.exact[row]) for row in rows],
        "bfloat16_flips": run.flips,
        "experts": [choice.experts.tolist() for choice in run.choices],
        "margins": [[round(margin, 6) for margin in layer.tolist()] for layer in run.margins],
    }


def describe(
    oracle: Oracle, directory: Path, model: str, prompts: list, largest_factor: float = 1.0
) -> dict:
    """The content of golden.json."""
    runs = [oracle.compare(tokens) for tokens, _ in prompts]
    return {
        "model": model,
        "digest": digest(directory),
        "oracle": f"{oracle.name}, float32",
        "largest_factor": largest_factor,
        "bfloat16_margin_errors": [
            round(max(errors), 6) for errors in zip(*(run.margin_errors for run in runs))
        ],
        "prompts": [
            _describe_prompt(run, tokens, length)
            for run, (tokens, length) in zip(runs, prompts, strict=True)
        ],
    }


def write_json(golden: dict, target: Path):
    """Writes target/golden.json, a prompt a line."""
    text = json.dumps(golden, separators=(",", ":"))
    for key in ('"prompts"', '{"tokens"'):
        text = text.replace(key, "\n" + key)
    (target / "golden.json").write_text(text + "\n", encoding="utf-8")


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
    write_json(golden, target)
    size = sum(path.stat().st_size for path in target.iterdir())
    forced = [row for prompt in golden["prompts"] for row in prompt["bfloat16_forced"]]
    free = [row for prompt in golden["prompts"] for row in prompt["bfloat16_free"]]
    print(
        f"{name}: {size / 1024:.0f} kB, bfloat16's largest error {max(forced)[0]:.4f} with the "
        f"oracle's experts, {max(free)[0]:.4f} with its own "
        f"({sum(prompt['bfloat16_flips'] for prompt in golden['prompts'])} other choices)",
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
        yield from routing_differences(index, a, b)


def routing_differences(index: int, old: dict, new: dict):
    """The same for the experts of a prompt."""
    for layer, (experts_a, experts_b) in enumerate(
        zip(old["experts"], new["experts"], strict=True)
    ):
        for position, (a, b) in enumerate(zip(experts_a, experts_b, strict=True)):
            margins = [golden["margins"][layer][position] for golden in (old, new)]
            where = f"prompt {index}, MoE layer {layer}, position {position}"
            if set(a) != set(b):
                yield f"{where}: experts {a} and {b}, with margins of {margins}"
            elif abs(margins[0] - margins[1]) > TOLERANCE:
                yield f"{where}: margins {margins}"


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
