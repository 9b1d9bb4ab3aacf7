"""Compares Baleen with transformers on random models that no test has seen.

    python fresh.py [--models N] [--seed S] [--build build/release]

Each model gets its own architecture, weights and prompts from (seed, index), the same for the same
seed. `baleen generate` answers the prompts; then tests/worker/model/golden_test.cc looks at the
model as it does at those of tests/golden, with all its bounds: with the oracle's experts our
log-probabilities are no further from float32 than those of transformers' own bfloat16 run, and our
gates choose other experts only where these are nearly tied. Of prompts without such near-ties, what
`baleen generate` said is held against the bfloat16 run as well. Every model must pass.

Of some hundred differences the largest one is partly luck, and among many models luck runs out:
about one in fifty has ours above the bfloat16 run's, though the root of the mean square is still
smaller by a third or more. So the bound on the largest one is LARGEST_FACTOR times the bfloat16
run's here; that on the root of the mean square is exact, as both are on the models of tests/golden.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from checkpoints import Recipe, write, yarn
from golden import describe as describe_golden
from golden import write_json
from oracle import TOP, Error, Oracle

ROOT = Path(__file__).resolve().parents[2]
PROMPT_LENGTHS = (1, 3, 17, 31, 64, 65, 100, 129, 190)
CONTEXT = 256
TOKENS = 9
RUN_LIMIT_S = 120
LARGEST_FACTOR = 1.5
GOLDEN_TESTS = 8  # of golden_test.cc for each model


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


def run_golden_test(program: Path, root: Path) -> tuple:
    """(the properties that the tests recorded, the failed tests with their messages) of the models
    in root/tests/golden."""
    report = root / "report.json"
    done = subprocess.run(
        [program, "--gtest_filter=Models/*", f"--gtest_output=json:{report}"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    if not report.is_file():
        sys.exit(f"{program}: exit {done.returncode}: {done.stderr.strip()}")
    tests = [
        test
        for suite in json.loads(report.read_text(encoding="utf-8"))["testsuites"]
        for test in suite["testsuite"]
    ]
    if len(tests) < GOLDEN_TESTS:
        sys.exit(f"{program} ran {len(tests)} tests; {GOLDEN_TESTS} were expected")
    wrong = [
        f"{test['name'].split('/')[0]}: {failure['failure'].strip()}"
        for test in tests
        for failure in test.get("failures", [])
    ]
    if done.returncode != 0 and not wrong:
        wrong = [f"exit {done.returncode}"]
    return {key: value for test in tests for key, value in test.items()}, wrong


def compare_answers(oracle: Oracle, runs: list) -> list:
    """What is wrong with answers of `baleen generate` that no near-tie has changed. An error is
    measured over the tokens that are among the most probable ones of both sides."""
    ours, bfloat16, wrong = Error(), Error(), []
    for tokens, positions, answers in runs:
        exact = oracle.exact_log_probs(tokens)[positions]
        rough = oracle.log_probs(oracle.rough, tokens)[positions]
        for i, answer in enumerate(answers):
            best = set(exact[i].topk(min(TOP, exact.shape[-1])).indices.tolist())
            common = [(token, value) for token, value in answer["top"] if token in best]
            ours.add(value - float(exact[i][token]) for token, value in common)
            bfloat16.add(float(rough[i][token] - exact[i][token]) for token, _ in common)
    for tokens, positions, answers in runs:
        for exact, answer in zip(oracle.exact_log_probs(tokens)[positions], answers, strict=True):
            first, second = exact.topk(2).values.tolist()
            clear = first - second > 2 * LARGEST_FACTOR * bfloat16.largest
            if clear and answer["token_id"] != int(exact.argmax()):
                wrong.append(f"baleen generate: another token after {len(tokens)}")
    if ours.largest > LARGEST_FACTOR * bfloat16.largest or ours.rms > bfloat16.rms:
        wrong.append(
            f"baleen generate: largest error {ours.largest:.4f} (bfloat16 {bfloat16.largest:.4f}), "
            f"rms {ours.rms:.4f} ({bfloat16.rms:.4f})"
        )
    return wrong


@dataclass
class Result:
    """Of one model."""

    properties: dict  # what golden_test recorded
    bfloat16_flips: int
    wrong: list

    def line(self) -> str:
        """Its figures, of both forms."""
        found = self.properties
        return (
            f"error ratio to bfloat16 {found['ratio_prefill']} {found['ratio_absorbed']}, "
            f"other experts {found['flips_prefill']} {found['flips_absorbed']} "
            f"(bfloat16 {self.bfloat16_flips}) of {found['decisions']}"
        )


def compare(recipe: Recipe, root: Path, build: Path) -> Result:
    """Makes a model in the empty folder `root` and looks at it."""
    model = "tests/golden/model"
    directory = root / model
    write(recipe, directory)
    oracle = Oracle(directory)
    rng = random.Random(recipe.seed)
    runs = []
    for length in PROMPT_LENGTHS:
        prompt = [rng.randrange(recipe.config["vocab_size"]) for _ in range(length)]
        answers = generate(build / "bin" / "baleen", directory, prompt)
        tokens = prompt + [answer["token_id"] for answer in answers[:-1]]
        runs.append((tokens, list(range(length - 1, len(tokens))), answers))
    prompts = [(tokens, rows[0] + 1) for tokens, rows, _ in runs]
    golden = describe_golden(oracle, directory, model, prompts, LARGEST_FACTOR)
    write_json(golden, directory)
    properties, wrong = run_golden_test(build / "tests" / "golden_test", root)
    flipped = {int(index) for index in properties["flipped_absorbed"].split(",") if index}
    unchanged = [run for index, run in enumerate(runs) if index not in flipped]
    return Result(
        properties,
        sum(prompt["bfloat16_flips"] for prompt in golden["prompts"]),
        wrong + compare_answers(oracle, unchanged),
    )


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    for program in ("bin/baleen", "tests/golden_test"):
        if not (build / program).is_file():
            parser.error(f"{build / program} is not there: make oracle builds it")
    failures = ours = theirs = decisions = 0
    for index in range(arguments.models):
        recipe = random_recipe(random.Random(f"{arguments.seed} {index}"))
        with tempfile.TemporaryDirectory() as scratch:
            result = compare(recipe, Path(scratch), build)
        failures += bool(result.wrong)
        ours += int(result.properties["flips_absorbed"])
        theirs += result.bfloat16_flips
        decisions += int(result.properties["decisions"])
        print(f"model {index + 1}/{arguments.models}: {result.line()}: {describe(recipe)}")
        for line in result.wrong:
            print(f"  WRONG {line}")
        sys.stdout.flush()
    print(
        f"{arguments.models - failures} of {arguments.models} models within the bounds; gates chose "
        f"other experts in {ours} of {decisions} decisions, bfloat16's in {theirs}"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
