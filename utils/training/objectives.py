"""Objectives: how the logits of a micro-batch become per-example losses. The training loop is handed one of them.

`group_dro` is not here: its losses are the plain ones, and the weights of its batches change (`group_dro.py`).
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from utils.flags import RunSettings
from utils.models.families import final_linear, read_by_head
from utils.training.shortcut import FLOOR, Shortcut


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


@contextlib.contextmanager
def objective_of(settings: RunSettings, shortcut: Shortcut, model, labels: np.ndarray, device) -> Iterator:
    """The objective that the settings name. What it adds to the model for the training is gone after the block."""

    def table(values):
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    if settings.objective == "poe":
        yield poe(table(log_bias(shortcut.p_bias)))
    elif settings.objective == "conf_reg":
        yield soft_targets(table(scaled_teacher(shortcut.teacher, shortcut.p_bias, labels)))
    elif settings.objective == "learned_mixin":
        with learned_mixin(model, table(log_bias(shortcut.p_bias)), settings.mixin_penalty, settings.seed) as objective:
            yield objective
    else:
        yield smoothed(settings.label_smoothing_factor)


def log_bias(p_bias: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p_bias, FLOOR))


def poe(log_p_bias: torch.Tensor):
    """Product of experts: the loss of softmax(log p + log p_bias). Clark et al. 2019, arXiv 1909.03683, section 3.2.2.

    log_p_bias: float32 (n, C), row by example_index.
    """

    def objective(logits, labels, example_index):
        joint = F.log_softmax(logits.float(), 1) + _rows(log_p_bias, example_index)
        return F.cross_entropy(joint, labels, reduction="none")

    return objective


@contextlib.contextmanager
def learned_mixin(model, log_p_bias: torch.Tensor, penalty: float, seed: int) -> Iterator:
    """Learned mixin: the loss of softmax(log p + g log p_bias) + penalty x entropy of softmax(g log p_bias), where
    g = softplus(w h + b) of the features h. Clark et al. 2019, arXiv 1909.03683, sections 3.2.3 and 3.2.4.

    w and b belong to the model inside the block, so that they are trained and saved in checkpoints with it. h is what the
    classifier layer takes in, after dropout (the authors' code takes it before the dropout); w starts from normal numbers
    of standard deviation 0.02, as the layers of BERT do.
    """
    head, seen = final_linear(model), {}
    scale = torch.nn.Linear(head.in_features, 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        scale.weight.normal_(0.0, 0.02, generator=generator)
        scale.bias.zero_()
    hooks = [
        head.register_forward_pre_hook(lambda module, inputs: seen.update(features=inputs[0])),
        model.register_forward_pre_hook(
            lambda module, args, named: seen.update(ids=named.get("input_ids")), with_kwargs=True
        ),
    ]
    model.add_module("bias_scale", scale)

    def objective(logits, labels, example_index):
        features = read_by_head(model, seen.pop("features"), seen.pop("ids", None))
        factor = F.softplus(scale(features.float()))
        bias = factor * _rows(log_p_bias, example_index)
        joint = F.log_softmax(logits.float(), 1) + bias
        log_p = F.log_softmax(bias, 1)
        return F.cross_entropy(joint, labels, reduction="none") - penalty * (log_p.exp() * log_p).sum(1)

    try:
        yield objective
    finally:
        for hook in hooks:
            hook.remove()
        del model.bias_scale


def scaled_teacher(teacher: np.ndarray, p_bias: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float (n, C): the teacher's probabilities to the power 1 - p_bias(gold label), normalised. The surer the bias model
    is of the gold label, the flatter is the target. Utama et al. 2020, arXiv 2005.00315, equation 1."""
    power = 1 - p_bias[np.arange(len(labels)), labels]
    scaled = np.maximum(teacher, FLOOR) ** power[:, None]
    return scaled / scaled.sum(1, keepdims=True)


def soft_targets(targets: torch.Tensor):
    """Cross-entropy with target probabilities float32 (n, C), row by example_index: confidence regularisation, where they
    are those of `scaled_teacher`. The gold label counts through them alone."""

    def objective(logits, labels, example_index):
        return -(_rows(targets, example_index) * F.log_softmax(logits.float(), 1)).sum(1)

    return objective


def _rows(table: torch.Tensor, example_index: np.ndarray) -> torch.Tensor:
    return table[torch.from_numpy(example_index).to(table.device, non_blocking=True)]


def smoothed(smoothing: float):
    """The plain loss with smoothed labels (per_example_loss); `erm` where there is nothing to smooth."""

    def objective(logits, labels, example_index):
        return per_example_loss(logits, labels, smoothing=smoothing)

    return objective if smoothing else erm
