"""Encoder families: one record for everything that depends on a model's architecture. Code that would ask for a class
name asks here instead. A model of another type gets the record `OTHER`: it works, but padded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from utils.errors import InputError


@dataclass(frozen=True)
class Family:
    """What the project must know of one architecture.

    model_type: as in the config. layers: path from the base model to its list of layers, None where layers share their
    weights. classifier: paths, tried in turn, from the classification model to its last linear layer. packed_head: (model,
    hidden states (n, d) of the first tokens) -> logits (n, C), by the model's own modules; None where the family does not
    run packed. padding_offset: positions count from the one after the padding token's, as in RoBERTa.
    """

    model_type: str
    layers: str | None = "encoder.layer"
    classifier: tuple[str, ...] = ("classifier",)
    packed_head: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None
    padding_offset: bool = False


FAMILIES = (
    Family(
        "albert",
        layers=None,
        packed_head=lambda model, first: model.classifier(
            model.dropout(model.albert.pooler_activation(model.albert.pooler(first)))
        ),
    ),
    Family("bert", packed_head=lambda model, first: model.classifier(model.dropout(model.bert.pooler(first[:, None])))),
    Family(
        "roberta",
        classifier=("classifier.out_proj",),
        packed_head=lambda model, first: model.classifier(first[:, None]),
        padding_offset=True,
    ),
    Family(
        "distilbert",
        layers="transformer.layer",
        packed_head=lambda model, first: model.classifier(model.dropout(F.relu(model.pre_classifier(first)))),
    ),
)
OTHER = Family("other", classifier=("classifier.out_proj", "classifier", "score", "logits_proj"))


def family_of(model) -> Family:
    """The record of this model's architecture, `OTHER` where it has none."""
    return next((family for family in FAMILIES if family.model_type == model.config.model_type), OTHER)


def num_positions(model) -> int | None:
    """Tokens that fit the model, None where its positions have no limit."""
    room = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(model.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return room - padding - 1 if room and padding is not None else room  # RoBERTa: 514 positions hold 512 tokens


def final_linear(model) -> torch.nn.Linear:
    """The layer that turns features into logits. Raises InputError where it cannot be found."""
    for path in family_of(model).classifier:
        head = _at(model, path)
        if isinstance(head, torch.nn.Linear):
            return head
    raise InputError(f"{type(model).__name__}: cannot find its final linear layer")


def freeze_lower_layers(model, count: int) -> None:
    """Keep the embeddings and the lowest `count` layers as they are. Raises InputError where that cannot be done."""
    path = family_of(model).layers
    stack = _at(model.base_model, path) if path else None
    if stack is None:
        raise InputError(
            f"--freeze_layers: {type(model).__name__} shares or hides its layers; it can only be trained whole"
        )
    if count > len(stack):
        raise InputError(f"--freeze_layers {count}: the model has {len(stack)} layers")
    for module in (model.base_model.embeddings, *stack[:count]):
        module.requires_grad_(False)


def _at(module, path: str):
    """The submodule at a dotted path, None where there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
