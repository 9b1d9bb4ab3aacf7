"""Operations with hand-written gradients, where autograd's own are slow on a CPU."""

import torch


class RmsNorm(torch.autograd.Function):
    """RMS norm with a fused backward: autograd's own keeps four intermediates and is slower."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps).to(x.dtype)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx, grad):
        normed, scale, weight = ctx.saved_tensors
        grad_weight = (grad * normed).flatten(0, -2).sum(0)
        grad = grad * weight
        return (grad - normed * (grad * normed).mean(-1, keepdim=True)) * scale, grad_weight, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up for gate and up side by side in one tensor."""

    @staticmethod
    def forward(ctx, gate_up):
        gate, up = gate_up.chunk(2, -1)
        sigmoid = torch.sigmoid(gate)
        ctx.save_for_backward(gate_up, sigmoid)
        return gate * sigmoid * up

    @staticmethod
    def backward(ctx, grad):
        gate_up, sigmoid = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        silu = gate * sigmoid
        return torch.cat([grad * up * (sigmoid + silu * (1 - sigmoid)), grad * silu], -1)


class GroupedLinear(torch.autograd.Function):
    """y = x @ W[e].T for rows sorted by expert; `ends[e]` is the row after expert e's last."""

    @staticmethod
    def forward(ctx, x, weight, ends):
        y = x.new_empty(x.shape[0], weight.shape[1])
        begin = 0
        for expert, end in enumerate(ends):
            if end > begin:
                torch.mm(x[begin:end], weight[expert].t(), out=y[begin:end])
            begin = end
        ctx.save_for_backward(x, weight)
        ctx.ends = ends
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        begin = 0
        for expert, end in enumerate(ctx.ends):
            if end > begin:
                torch.mm(grad[begin:end], weight[expert], out=grad_x[begin:end])
                torch.mm(grad[begin:end].t(), x[begin:end], out=grad_weight[expert])
            begin = end
        return grad_x, grad_weight, None


class ToExperts(torch.autograd.Function):
    """x [T, H] -> one row per (token, slot), sorted by expert; backward gathers, never scatters."""

    @staticmethod
    def forward(ctx, x, token_of_row, row_of_slot, slots):
        ctx.save_for_backward(row_of_slot)
        ctx.slots = slots
        return x.index_select(0, token_of_row)

    @staticmethod
    def backward(ctx, grad):
        (row_of_slot,) = ctx.saved_tensors
        return (
            grad.index_select(0, row_of_slot).view(-1, ctx.slots, grad.shape[-1]).sum(1),
            None,
            None,
            None,
        )


class FromExperts(torch.autograd.Function):
    """The way back: rows sorted by expert -> [T * K, H] in token order."""

    @staticmethod
    def forward(ctx, y, row_of_slot):
        ctx.save_for_backward(row_of_slot)
        ctx.rows = y.shape[0]
        return y.index_select(0, row_of_slot)

    @staticmethod
    def backward(ctx, grad):
        (row_of_slot,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, row_of_slot, grad), None
