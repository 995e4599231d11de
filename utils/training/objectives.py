"""Objectives: how the logits of a micro-batch become per-example losses. The training loop is handed one of them."""

import numpy as np
import torch
import torch.nn.functional as F


def per_example_loss(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """float32 (b,) losses: cross-entropy for class numbers int64 (b,), squared error for regression targets.

    smoothing: share of the target that is spread evenly over the classes. Szegedy et al. 2016, arXiv 1512.00567, section 7.
    """
    if labels.is_floating_point():
        return (logits.float().squeeze(1) - labels).square()
    return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)


def erm(logits: torch.Tensor, labels: torch.Tensor, example_index: np.ndarray) -> torch.Tensor:
    """Empirical risk minimisation: the plain loss of every example, whichever example it is."""
    return per_example_loss(logits, labels)


def smoothed(smoothing: float):
    """The plain loss with smoothed labels (per_example_loss); `erm` where there is nothing to smooth."""

    def objective(logits, labels, example_index):
        return per_example_loss(logits, labels, smoothing=smoothing)

    return objective if smoothing else erm
