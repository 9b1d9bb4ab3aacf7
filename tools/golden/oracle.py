"""Hugging Face transformers as the oracle: log-probabilities, and the error of bfloat16."""

import json
import math
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from checkpoints import FAMILIES
from fp8 import read_dequantized
from routing import flips, gates, margins, watched

transformers.logging.set_verbosity_error()  # this file itself checks which weights are loaded
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore", message="Initializing zero-element tensors")

TOP = 20  # an error is measured over this many most probable tokens of a position


@dataclass
class Error:
    """Differences of log-probabilities (natural logarithm) to the float32 oracle."""

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, differences):
        for difference in differences:
            self.largest = max(self.largest, abs(difference))
            self.squares += difference * difference
            self.count += 1

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / max(self.count, 1))


@dataclass
class Comparison:
    """One sequence in float32 and in bfloat16. Log-probabilities are [positions, vocabulary]."""

    exact: torch.Tensor
    choices: list  # of the float32 run, one a MoE layer
    free: torch.Tensor  # bfloat16 with the experts of its own choice
    forced: torch.Tensor  # bfloat16 with the float32 run's experts
    flips: int  # decisions, one a MoE layer and position, that the forced run's gates make otherwise
    margins: list  # of the choices, [positions] each
    margin_errors: list  # the forced run's largest error of a margin, one a MoE layer


class Oracle:
    """transformers' own model on the float32 weights that a checkpoint stands for."""

    def __init__(self, directory: Path):
        self.config, tensors = read_dequantized(directory)
        model_class = FAMILIES[self.config["model_type"]][1]
        self.name = f"{model_class.__name__} of transformers {transformers.__version__}"
        with tempfile.TemporaryDirectory() as copy:
            save_file(tensors, Path(copy) / "model.safetensors", metadata={"format": "pt"})
            (Path(copy) / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
            # float32: everything eager, the plainest code there is. bfloat16: as transformers
            # runs it by default.
            self.exact = self._load(model_class, copy, torch.float32, ("eager", "eager"))
            self.rough = self._load(model_class, copy, torch.bfloat16, ("sdpa", self._experts()))

    def _experts(self) -> str:
        # torch's grouped_mm, the default for experts, takes only rows of whole 16 bytes.
        widths = (self.config["hidden_size"], self.config.get("moe_intermediate_size", 0))
        return "grouped_mm" if all(width % 8 == 0 for width in widths) else "eager"

    def _load(self, model_class, directory, dtype, kind):
        model, info = model_class.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation=kind[0],
            experts_implementation=kind[1],
            output_loading_info=True,
        )
        mtp = f"model.layers.{self.config['num_hidden_layers']}."  # not built by transformers
        unexpected = [name for name in info["unexpected_keys"] if not name.startswith(mtp)]
        if info["missing_keys"] or unexpected:
            sys.exit(
                f"{directory}: missing {sorted(info['missing_keys'])}, unexpected {unexpected}"
            )
        return model.eval()

    @torch.no_grad()
    def log_probs(self, model, tokens) -> torch.Tensor:
        """Float64 [positions, vocabulary] of the distribution after each token."""
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), dim=-1)

    def exact_log_probs(self, tokens) -> torch.Tensor:
        return self.log_probs(self.exact, tokens)

    def compare(self, tokens) -> Comparison:
        """Runs both models, the bfloat16 one also with the experts of the float32 one."""
        with watched(self.exact) as choices:
            exact = self.log_probs(self.exact, tokens)
        free = self.log_probs(self.rough, tokens)
        with watched(self.rough, [choice.experts for choice in choices]) as others:
            forced = self.log_probs(self.rough, tokens)
        exact_margins = [
            margins(gate, choice, choice.scores)
            for gate, choice in zip(gates(self.exact), choices, strict=True)
        ]
        return Comparison(
            exact=exact,
            choices=choices,
            free=free,
            forced=forced,
            flips=flips(choices, others),
            margins=exact_margins,
            margin_errors=[
                float((margins(gate, choice, other.scores) - margin).abs().max())
                for gate, choice, other, margin in zip(
                    gates(self.rough), choices, others, exact_margins, strict=True
                )
            ],
        )
