"""Dropout for the CPU at a fifth of the library's cost: 15 random bits an element, four elements a random number, and
a mask that is applied to the bits of the numbers.

The bits come from torch's generator, so `torch.manual_seed` decides them and gradient checkpointing repeats them. An
element is dropped with probability round(p * 32768) / 32768; the rest is scaled by the inverse of exactly that share.
"""

import torch

_STEPS = 1 << 15  # probabilities are multiples of 1 / _STEPS
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


class Dropout(torch.nn.Dropout):
    """torch's module with this file's masks on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.p) if self.training else x


def use_cheap_dropout(model: torch.nn.Module) -> None:
    """Turn the dropout modules of `model` into those of this file; no parameter, name or config changes."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = Dropout


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """`F.dropout` of x, in training."""
    dropped = round(p * _STEPS)
    if x.device.type != "cpu" or x.dtype not in _BITS or dropped == _STEPS:
        return torch.nn.functional.dropout(x, p)
    if not dropped:
        return x
    bits = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    # Values from -32768 to -1, moved up: those still below zero are kept. The shift spreads the sign: -1 kept, 0 dropped.
    kept = bits.bitwise_or_(-_STEPS).add_(dropped).bitwise_right_shift_(15)
    return _Masked.apply(x, kept[: x.numel()].view(x.shape), _STEPS / (_STEPS - dropped))


class _Masked(torch.autograd.Function):
    """x * scale where `kept` (int16) is -1, 0 where it is 0."""

    @staticmethod
    def forward(ctx, x, kept, scale):
        ctx.save_for_backward(kept)
        ctx.scale = scale
        bits = _BITS[x.dtype]
        return (x.contiguous().view(bits) & kept.to(bits)).view(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx, gradient):
        return _Masked.apply(gradient, *ctx.saved_tensors, ctx.scale), None, None
