"""Objectives: how logits become per-example losses."""

import torch
import torch.nn.functional as F


def per_example_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(b,) losses: cross-entropy for class numbers, squared error for regression. In float32 always."""
    if labels.is_floating_point():
        return (logits.float().squeeze(1) - labels).square()
    return F.cross_entropy(logits.float(), labels, reduction="none")
