"""The optimizer: Muon for hidden matrices, Adam for embedding, head, gates and norms.

Each parameter is updated by exactly one process, so the training processes share the work of the
update as well as that of the gradient, and a step's result does not depend on timing.
"""

import torch

_MUON_DECAY = 0.02
_ADAM_DECAY = 0.01
# Newton-Schulz coefficients that drive all singular values towards 1 in five steps.
_POLAR = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def uses_muon(name: str, value: torch.Tensor) -> bool:
    """Hidden matrices, each expert apart; what touches the vocabulary or the gate is Adam's."""
    return value.dim() >= 2 and not any(
        part in name for part in ("embed", "lm_head", "gate.weight")
    )


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly, for each matrix of [..., rows, columns]."""
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().flatten(-2).norm(dim=-1)[..., None, None] + 1e-7).bfloat16()
    for a, b, c in _POLAR:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).float()


def split_work(parameters: dict, processes: int) -> list:
    """Parameter names per process, balanced by the cost of their update."""

    def cost(name):
        value = parameters[name]
        return value.numel() * (min(value.shape[-2:]) if uses_muon(name, value) else 16)

    shares, loads = [[] for _ in range(processes)], [0] * processes
    for name in sorted(parameters, key=cost, reverse=True):
        lightest = loads.index(min(loads))
        shares[lightest].append(name)
        loads[lightest] += cost(name)
    return shares


def moments(parameters: dict) -> dict:
    """Zeroed optimizer state: one momentum per parameter, a second moment for Adam's."""
    state = {f"first/{name}": torch.zeros_like(value) for name, value in parameters.items()}
    return state | {
        f"second/{name}": torch.zeros_like(value)
        for name, value in parameters.items()
        if not uses_muon(name, value)
    }


@torch.no_grad()
def update(parameters, state, name, grads, rates, step):
    """One step (from 1) of one parameter from all processes' gradients; rates: (Muon's, Adam's)."""
    value, first = parameters[name], state[f"first/{name}"]
    grad = grads[0].float()
    for other in grads[1:]:
        grad.add_(other)
    grad.div_(len(grads))
    muon_rate, adam_rate = rates
    if uses_muon(name, value):
        first.lerp_(grad, 0.05)
        direction = grad.lerp(first, 0.95)
        halves = (
            direction.chunk(2, -2) if name.endswith("gate_up") else (direction,)
        )  # gate and up are two matrices
        direction = torch.cat([orthogonalized(half) for half in halves], -2)
        rows, columns = halves[0].shape[-2:]
        value.mul_(1 - muon_rate * _MUON_DECAY).add_(
            direction, alpha=-muon_rate * max(1, rows / columns) ** 0.5
        )
        return
    second = state[f"second/{name}"]
    first.lerp_(grad, 0.1)
    second.lerp_(grad.square(), 0.02)
    corrected = second.div(1 - 0.98**step).sqrt_().add_(1e-10)
    if value.dim() > 1:
        value.mul_(1 - adam_rate * _ADAM_DECAY)
    value.addcdiv_(first, corrected, value=-adam_rate / (1 - 0.9**step))
