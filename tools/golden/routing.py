"""What the gates of a transformers model choose, and runs in which they choose what they are told.

Two runs of one model may route a token to other experts where two of them are nearly tied; their
results then differ by what those experts differ in, however well each run computes. So errors are
measured with equal experts, and the choices are compared on their own.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch

MARGIN_MAX = 1.0  # also of a choice without alternative: all groups, or all experts, are taken


@dataclass
class Choice:
    """What one layer's gate chose for every position."""

    experts: torch.Tensor  # [positions, slots], best first
    scores: torch.Tensor  # float32 [positions, experts]: what is compared, with correction bias


def gates(model) -> list:
    """The gates of the MoE layers, first layer first."""
    mlps = (layer.mlp for layer in model.model.layers)
    return [mlp.gate for mlp in mlps if hasattr(mlp, "gate")]


def _probabilities(gate, logits: torch.Tensor) -> torch.Tensor:
    return logits.sigmoid() if hasattr(gate, "e_score_correction_bias") else logits.softmax(dim=-1)


def _lead(values: torch.Tensor, taken: torch.Tensor, open_to: torch.Tensor) -> torch.Tensor:
    """By how much the last of the taken values leads the best one of the others that are open."""
    last = values.masked_fill(~taken, torch.inf).amin(-1)
    return last - values.masked_fill(taken | ~open_to, -torch.inf).amax(-1)


def margins(gate, exact: Choice, scores: torch.Tensor) -> torch.Tensor:
    """[positions]: by how much `scores` speak for the experts that `exact` holds.

    The smaller one of two leads: of the groups taken over those left, and of the experts taken over
    the others of these groups. Where it is above 0, `scores` lead to the experts of `exact`.
    """
    every = torch.ones_like(scores, dtype=torch.bool)
    taken = torch.zeros_like(every).scatter(1, exact.experts, True)
    margin, open_to = torch.full(scores.shape[:1], MARGIN_MAX), every
    by_sum = hasattr(gate, "e_score_correction_bias")
    if by_sum or gate.topk_method == "group_limited_greedy":

        def rate(values):
            groups = values.view(len(values), gate.num_group, -1)
            return groups.topk(2).values.sum(-1) if by_sum else groups.amax(-1)

        best = rate(exact.scores).topk(gate.topk_group).indices
        kept = torch.zeros(len(scores), gate.num_group, dtype=torch.bool).scatter(1, best, True)
        margin = margin.minimum(_lead(rate(scores), kept, torch.ones_like(kept)))
        open_to = kept.repeat_interleave(scores.shape[-1] // gate.num_group, dim=1)
    return margin.minimum(_lead(scores, taken, open_to))


@contextmanager
def watched(model, told: list | None = None):
    """Yields the list that runs of `model` append one Choice a layer to.

    told: the experts that each layer takes instead, [positions, slots] each, weighed as the layer's
    own scores say; the choices recorded are then those that it would have made.
    """
    choices = []

    def watch(gate, _, output):
        logits, weights, experts = output
        probabilities = _probabilities(gate, logits)
        scores = probabilities + getattr(gate, "e_score_correction_bias", 0.0)
        order = scores.gather(1, experts).argsort(descending=True)
        choices.append(Choice(experts.gather(1, order), scores))
        if told is None:
            return None
        experts = told[len(choices) - 1]
        weights = probabilities.gather(1, experts)
        if getattr(gate, "norm_topk_prob", False):
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return logits, weights * gate.routed_scaling_factor, experts

    hooks = [gate.register_forward_hook(watch) for gate in gates(model)]
    try:
        yield choices
    finally:
        for hook in hooks:
            hook.remove()


def flips(some: list, others: list) -> int:
    """Decisions, one a layer and position, in which two runs took other experts."""
    return sum(
        int((a.experts.sort().values != b.experts.sort().values).any(-1).sum())
        for a, b in zip(some, others, strict=True)
    )
