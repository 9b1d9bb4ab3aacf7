"""Compares `baleen generate` with transformers on random models that no test has seen.

    python fresh.py [--models N] [--seed S] [--baleen build/release/bin/baleen]

Each model gets its own architecture, weights and prompts from (seed, index). The bound is that of
tests/worker/model/golden_test.cc: over the 20 most probable tokens of every position looked at, our
log-probabilities are no further from the float32 oracle than those of transformers' own bfloat16
run, and where the oracle's best token leads by more than twice the latter's largest error, ours is
the same token.

The models are the same for the same seed. About one in thirty is expected to break the bound by
bad luck: where two experts are nearly tied in the gate, either run may pick the other one, and the
largest of a few hundred differences has a wide spread. The rms is then still about half.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from checkpoints import Recipe, write, yarn
from oracle import TOP, Error, Oracle

ROOT = Path(__file__).resolve().parents[2]
PROMPT_LENGTHS = (1, 3, 17, 31, 64, 65, 100, 129, 190)
CONTEXT = 256
TOKENS = 3
RUN_LIMIT_S = 120


def random_recipe(rng: random.Random) -> Recipe:
    """A small model of either family, every choice drawn at random."""
    family = rng.choice(list(_FAMILY_CHOICES))
    heads = rng.choice((1, 2, 3, 4))
    layers = rng.choice((1, 2, 3))
    config = {
        "vocab_size": rng.randrange(64, 400),
        "hidden_size": heads * rng.choice((16, 20, 24, 32, 40)),
        "intermediate_size": rng.randrange(40, 200),
        "moe_intermediate_size": rng.randrange(8, 72),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": rng.choice((None, 20, 48, 130)),
        "kv_lora_rank": rng.choice((16, 36, 64, 140)),
        "qk_nope_head_dim": rng.choice((8, 20, 32)),
        "qk_rope_head_dim": rng.choice((4, 8, 12, 32)),
        "v_head_dim": rng.choice((8, 20, 32)),
        "first_k_dense_replace": rng.randrange(layers + 1),
        "n_shared_experts": rng.randrange(3),
        "routed_scaling_factor": rng.choice((1.0, 1.7, 2.5)),
        "rms_norm_eps": rng.choice((1e-6, 1e-5)),
        "rope_theta": rng.choice((10000.0, 50000.0)),
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": rng.random() < 0.3,
    }
    groups = rng.choice((1, 2, 4))
    config["n_routed_experts"] = groups * rng.choice((2, 3, 5))
    eligible = rng.randrange(1, groups + 1)
    config["num_experts_per_tok"] = rng.randrange(
        1, eligible * config["n_routed_experts"] // groups + 1
    )
    config |= {"n_group": groups, "topk_group": eligible}
    if rng.random() < 0.6:
        mscale = rng.choice(({}, {"mscale": 1.0, "mscale_all_dim": rng.choice((0.7, 1.0))}))
        config["rope_scaling"] = yarn(4.0, CONTEXT // 4, **mscale)
    config |= _FAMILY_CHOICES[family](rng)
    fp8 = rng.random() < 0.4
    return Recipe(
        family,
        config,
        seed=rng.randrange(1 << 30),
        dtype=rng.choice((torch.bfloat16, torch.float32)),
        fp8=fp8,
        shard_bytes=rng.choice((0, 100_000)),
    )


def _v3_choices(rng) -> dict:
    return {"norm_topk_prob": rng.random() < 0.7, "num_nextn_predict_layers": 0}


def _v2_choices(rng) -> dict:
    return {"topk_method": rng.choice(("greedy", "group_limited_greedy"))}


_FAMILY_CHOICES = {"deepseek_v2": _v2_choices, "deepseek_v3": _v3_choices}


def generate(baleen: Path, directory: Path, prompt) -> list:
    """`logprobs` as the command line prints it: the first after the prompt, the others absorbed."""
    command = [baleen, "generate", "--model", directory, "--token-ids", ",".join(map(str, prompt))]
    command += ["--max-tokens", TOKENS, "--logprobs", TOP, "--ignore-eos", "--json"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False
    )
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(map(str, command[:4]))}: exit {done.returncode}: {done.stderr.strip()}"
        )
    return json.loads(done.stdout)["logprobs"]


def describe(recipe: Recipe) -> str:
    """One line that says what is special about a model."""
    config = recipe.config
    parts = [recipe.family[-2:], "fp8" if recipe.fp8 else str(recipe.dtype).rsplit(".", 1)[-1]]
    parts.append(f"q_lora {config['q_lora_rank']}")
    if config["first_k_dense_replace"] < config["num_hidden_layers"]:
        parts.append(f"experts {config['num_experts_per_tok']}/{config['n_routed_experts']}")
        parts.append(f"groups {config['topk_group']}/{config['n_group']}")
        parts.append(f"shared {config['n_shared_experts']}")
    else:
        parts.append("dense")
    parts += ["yarn"] if "rope_scaling" in config else []
    parts += ["tied"] if config["tie_word_embeddings"] else []
    return ", ".join(parts)


def compare(recipe: Recipe, directory: Path, baleen: Path) -> tuple:
    """(our error, bfloat16's error, what is wrong) over the prompts of one model."""
    write(recipe, directory)
    oracle = Oracle(directory)
    rng = random.Random(recipe.seed)
    runs = []
    for length in PROMPT_LENGTHS:
        prompt = [rng.randrange(recipe.config["vocab_size"]) for _ in range(length)]
        answers = generate(baleen, directory, prompt)
        tokens = prompt + [answer["token_id"] for answer in answers[:-1]]
        runs.append((tokens, list(range(length - 1, len(tokens))), answers))
    bfloat16 = oracle.bfloat16_error([(tokens, positions) for tokens, positions, _ in runs])
    ours, wrong = Error(), []
    for tokens, positions, answers in runs:
        for exact, answer in zip(oracle.exact_log_probs(tokens)[positions], answers, strict=True):
            ours.add(value - float(exact[token]) for token, value in answer["top"])
            first, second = exact.topk(2).values.tolist()
            clear = first - second > 2 * bfloat16.largest
            if clear and answer["token_id"] != int(exact.argmax()):
                wrong.append(f"another token after {len(tokens)}")
    if ours.largest > bfloat16.largest:
        wrong.append("largest error above bfloat16's")
    if ours.rms > bfloat16.rms:
        wrong.append("rms error above bfloat16's")
    return ours, bfloat16, wrong


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--baleen", type=Path, default=ROOT / "build/release/bin/baleen")
    arguments = parser.parse_args()
    if not arguments.baleen.is_file():
        parser.error(f"{arguments.baleen} is not there: make build")
    failures = 0
    for index in range(arguments.models):
        recipe = random_recipe(random.Random(f"{arguments.seed} {index}"))
        with tempfile.TemporaryDirectory() as scratch:
            ours, bfloat16, wrong = compare(recipe, Path(scratch) / "model", arguments.baleen)
        failures += bool(wrong)
        print(
            f"model {index + 1}/{arguments.models}: largest {ours.largest:.4f} "
            f"(bfloat16 {bfloat16.largest:.4f}) rms {ours.rms:.4f} ({bfloat16.rms:.4f})  "
            f"{describe(recipe)}{': ' + '; '.join(wrong) if wrong else ''}",
            flush=True,
        )
    print(f"{arguments.models - failures} of {arguments.models} models within the bound")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
