"""Trains the nano model on a CPU: the trunk, then the MTP layer on the frozen trunk, then export.

    python train.py --out RUN            (one to two hours on two cores)
    python train.py --out RUN --smoke    (a few steps of everything, well under a minute)

Two single-threaded processes compute gradients on their own batches in shared memory; each then
updates its share of the parameters. Killed at any moment, the same command goes on from the latest
checkpoint in RUN and ends with the same bits as an undisturbed run, because batches depend on
(seed, step, rank) alone.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Expert batches come in many shapes; oneDNN compiles a kernel for each and must not forget them.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")

import argparse
import ctypes
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing
import torch.nn.functional as F

import model
from data.batches import ROW_TOKENS, make_batch, pack_all
from data.conversation import Conversation
from data.problems import ARITHMETIC, held_out_set
from data.tokenizer import encode, make_tokenizer
from export import export
from optimizer import moments, split_work, update

MUON_RATE, ADAM_RATE = 0.01, 3e-3
WARMUP_STEPS = 30
# Last part of the run, in which the rates fall linearly to zero: the steepest gains come there.
DECAY_PART = 0.64
BIAS_RATE = 0.005
EXPERT_ROWS_MULTIPLE = 128
PROGRESS_STEPS = 10
REPORT_PROBLEMS_PER_TASK = 48
BARRIER_WAIT_S = 900
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Options:
    """One run. Tokens are row positions; padding, about one in twenty, is counted."""

    out: Path
    seed: int
    trunk_tokens: int
    mtp_tokens: int
    rows: int
    processes: int
    checkpoint_steps: int
    report_steps: int

    @property
    def step_tokens(self):
        """Row positions of one step, all processes together."""
        return self.rows * ROW_TOKENS * self.processes


def trunk_outputs(net, parameters, _, batch, mask):
    """Logits and labels of the next token over the replies."""
    hidden = net.hidden(parameters, batch.ids[:, :-1], mask)
    chosen = batch.labels >= 0
    return F.linear(hidden[chosen], parameters["lm_head.weight"]), batch.labels[chosen]


def mtp_outputs(net, parameters, trunk, batch, mask):
    """Logits and labels of drafting the token after next; trunk, embedding and head are frozen."""
    with torch.no_grad():
        hidden = net.hidden(trunk, batch.ids[:, :-1], mask)
    net.loads.clear()
    drafted = net.draft_hidden(
        trunk | parameters, hidden[:, :-1], batch.ids[:, 1:-1], mask[:, :-1, :-1]
    )
    labels = batch.labels[:, 1:]
    chosen = labels >= 0
    return F.linear(drafted[chosen], trunk["lm_head.weight"]), labels[chosen]


class Stage:
    """What is trained (trunk or MTP) and everything its processes share in memory."""

    def __init__(self, name, options, tokenizer, trunk=None):
        self.name, self.options, self.tokenizer = name, options, tokenizer
        self.trunk = (
            {}
            if trunk is None
            else {
                key: value if key.endswith(model.BIAS) else value.bfloat16()
                for key, value in trunk.items()
            }
        )
        self.outputs = trunk_outputs if trunk is None else mtp_outputs
        shapes = (
            model.trunk_shapes(model.CONFIG) if trunk is None else model.mtp_shapes(model.CONFIG)
        )
        tokens = options.trunk_tokens if trunk is None else options.mtp_tokens
        self.steps = max(1, tokens // options.step_tokens)
        self.seed = f"{options.seed}/{name}"
        self.parameters = model.initial_parameters(shapes, options.seed + (trunk is not None))
        self.biases = model.initial_biases(shapes)
        self.moments = moments(self.parameters)
        self.shares = split_work(self.parameters, options.processes)
        ranks = range(options.processes)
        self.grads = [
            {
                key: torch.zeros_like(value, dtype=torch.bfloat16)
                for key, value in self.parameters.items()
            }
            for _ in ranks
        ]
        self.loads = [
            {key: torch.zeros_like(value) for key, value in self.biases.items()} for _ in ranks
        ]
        self.losses = torch.zeros(options.processes)
        self.report = torch.zeros(len(ARITHMETIC))
        self.first_step = self._load()
        groups = (
            self.parameters,
            self.biases,
            self.moments,
            *self.grads,
            *self.loads,
            {"losses": self.losses, "report": self.report},
        )
        for group in groups:
            for value in group.values():
                value.share_memory_()

    @property
    def path(self):
        """Where the latest checkpoint of this stage lies."""
        return self.options.out / f"{self.name}.pt"

    def _load(self):
        if not self.path.exists():
            return 0
        saved = torch.load(self.path)
        if saved["seed"] != self.seed or saved["step_tokens"] != self.options.step_tokens:
            sys.exit(
                f"{self.path}: made with another seed, --rows or --processes; choose another --out"
            )
        for group in ("parameters", "biases", "moments"):
            for key, value in getattr(self, group).items():
                value.copy_(saved[group][key])
        return saved["step"]

    def save(self, step):
        """Writes the checkpoint beside the old one, then swaps: a kill leaves one or the other."""
        saved = {
            "step": step,
            "seed": self.seed,
            "step_tokens": self.options.step_tokens,
            "parameters": self.parameters,
            "biases": self.biases,
            "moments": self.moments,
        }
        partial = self.path.with_suffix(".partial")
        torch.save(saved, partial)
        os.replace(partial, self.path)

    def rate(self, step):
        """Factor on all learning rates at this step."""
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        return warm * min(1.0, (1 - step / self.steps) / DECAY_PART)

    def weights(self):
        """Parameters and biases together, as the finished stage hands them on."""
        return {key: value.clone() for key, value in (self.parameters | self.biases).items()}


def _mask(batch, dtype=torch.bfloat16):
    return model.attention_mask(
        batch.documents, batch.documents, model.CONFIG["num_attention_heads"], dtype
    )


@torch.no_grad()
def held_out_score(stage, net, task):
    """Teacher-forced, so cheap and optimistic: replies with every token right; for MTP, drafts."""
    encoded = [
        encode(stage.tokenizer, Conversation(problem))
        for problem in held_out_set(task, REPORT_PROBLEMS_PER_TASK, seed=99)
    ]
    batch = pack_all(encoded)
    parameters = {key: value.bfloat16() for key, value in stage.parameters.items()} | stage.biases
    logits, labels = stage.outputs(net, parameters, stage.trunk, batch, _mask(batch))
    right = logits.argmax(-1) == labels
    if stage.trunk:
        return right.float().mean()
    documents = batch.documents[batch.labels >= 0]
    return 1 - len(set(documents[~right].tolist())) / len(encoded)


def compute_gradients(stage, net, rank, step):
    """One process's loss and gradients on its own batch, left in shared memory."""
    batch = make_batch(stage.tokenizer, stage.options.rows, stage.seed, step, rank)
    leaves = {key: value.bfloat16().requires_grad_() for key, value in stage.parameters.items()}
    with torch.enable_grad():
        logits, labels = stage.outputs(net, leaves | stage.biases, stage.trunk, batch, _mask(batch))
        loss = F.cross_entropy(logits.float(), labels)
    for (key, _), grad in zip(leaves.items(), torch.autograd.grad(loss, list(leaves.values()))):
        stage.grads[rank][key].copy_(grad)
    for key, load in stage.loads[rank].items():
        load.copy_(net.loads[key])
    stage.losses[rank] = loss.detach()


def apply_update(stage, rank, step):
    """This process's share of the parameters; rank 0 also steers the biases towards even load."""
    factor = stage.rate(step)
    for key in stage.shares[rank]:
        rates = (MUON_RATE * factor, ADAM_RATE * factor)
        update(
            stage.parameters,
            stage.moments,
            key,
            [grads[key] for grads in stage.grads],
            rates,
            step + 1,
        )
    if rank == 0:
        for key, bias in stage.biases.items():
            load = sum(loads[key] for loads in stage.loads)
            bias.add_(BIAS_RATE * factor * torch.sign(load.mean() - load))


class Progress:
    """The progress lines, on the terminal and in log.txt."""

    def __init__(self, stage):
        self.stage = stage
        self.marks = deque([(time.monotonic(), stage.first_step)], maxlen=11)
        self.losses = []

    def step(self, done):
        """Counts one step; every PROGRESS_STEPS says where the run is."""
        self.losses.append(self.stage.losses.mean().item())
        if done % PROGRESS_STEPS and done != self.stage.steps:
            return
        self.marks.append((time.monotonic(), done))
        elapsed, steps = (last - first for first, last in zip(self.marks[0], self.marks[-1]))
        per_step = elapsed / max(1, steps)
        self.say(
            f"step {done}/{self.stage.steps}  loss {sum(self.losses) / len(self.losses):.4f}  "
            f"{self.stage.options.step_tokens / per_step:.0f} tokens/s  "
            f"ETA {per_step * (self.stage.steps - done) / 60:.1f} min"
        )
        self.losses.clear()

    def report(self):
        """Says how the held-out problems fare."""
        scores = "  ".join(
            f"{task} {score:.3f}" for task, score in zip(ARITHMETIC, self.stage.report.tolist())
        )
        self.say(f"held out, teacher-forced: {scores}")

    def say(self, text):
        """One line, with the stage's name before it."""
        line = f"{self.stage.name}  {text}"
        print(line, flush=True)
        with open(self.stage.options.out / "log.txt", "a", encoding="utf-8") as log:
            log.write(line + "\n")


def work(stage, rank, barrier):
    """One training process. Between two barriers nobody reads what another one writes."""
    if rank:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive a killed parent
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    options, net = stage.options, model.Nano(model.CONFIG, EXPERT_ROWS_MULTIPLE)
    progress = Progress(stage) if rank == 0 else None
    for step in range(stage.first_step, stage.steps):
        compute_gradients(stage, net, rank, step)
        barrier.wait(BARRIER_WAIT_S)
        apply_update(stage, rank, step)
        barrier.wait(BARRIER_WAIT_S)
        done = step + 1
        if progress:
            progress.step(done)
            if done % options.checkpoint_steps == 0 or done == stage.steps:
                stage.save(done)
        if done % options.report_steps == 0 or done == stage.steps:
            for index in range(rank, len(ARITHMETIC), options.processes):
                stage.report[index] = held_out_score(stage, net, ARITHMETIC[index])
            barrier.wait(BARRIER_WAIT_S)
            if progress:
                progress.report()


def run_stage(stage):
    """Trains the stage to its last step, in this process and its forks, and returns the weights."""
    context = torch.multiprocessing.get_context("fork")
    barrier = context.Barrier(stage.options.processes)
    others = [
        context.Process(target=work, args=(stage, rank, barrier), daemon=True)
        for rank in range(1, stage.options.processes)
    ]
    for other in others:
        other.start()
    work(stage, 0, barrier)
    for other in others:
        other.join()
    return stage.weights()


def parse_options() -> Options:
    """The command line; --smoke shrinks the budgets and leaves everything else alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the run; resumes what is there"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trunk-tokens", type=int, default=20_400_000)
    parser.add_argument("--mtp-tokens", type=int, default=3_100_000)
    parser.add_argument(
        "--rows", type=int, default=12, help="rows of 320 tokens per process and step"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--checkpoint-steps", type=int, default=50)
    parser.add_argument("--report-steps", type=int, default=200)
    parser.add_argument(
        "--smoke", action="store_true", help="a few tiny steps of every stage, then export"
    )
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        step_tokens = 2 * ROW_TOKENS * arguments["processes"]
        arguments |= {
            "rows": 2,
            "checkpoint_steps": 2,
            "trunk_tokens": 8 * step_tokens,
            "mtp_tokens": 4 * step_tokens,
        }
    return Options(**arguments)


def main():
    """Trunk, MTP, export: each stage starts from its checkpoint if there is one."""
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(model.CONFIG["vocab_size"], options.seed)
    trunk = run_stage(Stage("trunk", options, tokenizer))
    export(options.out / "trunk-only", tokenizer, trunk)
    mtp = run_stage(Stage("mtp", options, tokenizer, trunk))
    export(options.out / "nano", tokenizer, trunk | mtp)
    print(f"exported to {options.out / 'nano'}")


if __name__ == "__main__":
    main()
