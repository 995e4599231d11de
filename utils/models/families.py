"""Encoder families: one record for everything that depends on a model's architecture. Code that would ask for a class
name asks here instead. A model of another type gets the record `OTHER`: it works, but padded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from utils.errors import InputError
from utils.models import packed_families as own


@dataclass(frozen=True)
class Family:
    """What the project must know of one architecture.

    model_type: as in the config. packed_head: (model, pooled hidden states (n, d)) -> logits (n, C), by the model's own
    modules; None where the family does not run packed. padding_offset: positions count from the one after the padding
    token's, as in RoBERTa. packed_encoder: the base model's packed pass (see `packed_families`) where its attention does
    not go through transformers' AttentionInterface. packed_options: further arguments of the base model's packed pass.
    shared: paths from the base model to modules that its lowest layers use, but that it registers after its layers.
    last_attention: where the head reads first tokens alone: base model -> (the module whose output the feed-forward network
    of the last layer reads, how often a pass calls it), or None; see `first_tokens_only` of `packing`.
    """

    model_type: str
    packed_head: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None
    padding_offset: bool = False
    packed_encoder: Callable | None = None
    packed_options: dict = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    last_attention: Callable[[torch.nn.Module], tuple[torch.nn.Module, int] | None] = lambda base: None


def _last_attention(base):
    return base.encoder.layer[-1].attention, 1


def _last_albert_attention(base):
    config, encoder = base.config, base.encoder
    groups = [int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers)]
    return encoder.albert_layer_groups[groups[-1]].albert_layers[-1].attention, groups.count(groups[-1])


def _last_deberta_attention(base):
    # The first layer's convolution sees all tokens.
    only_layer = len(base.encoder.layer) == 1 and getattr(base.encoder, "conv", None) is not None
    return None if only_layer else _last_attention(base)


def _head_of_first(model, first):
    return model.classifier(first[:, None])  # a head that takes the first token of a sequence itself


def _deberta_head(model, first):
    return model.classifier(model.dropout(model.pooler(first[:, None])))


FAMILIES = (
    Family(
        "albert",
        lambda model, first: model.classifier(
            model.dropout(model.albert.pooler_activation(model.albert.pooler(first)))
        ),
        last_attention=_last_albert_attention,
    ),
    Family(
        "bert",
        lambda model, first: model.classifier(model.dropout(model.bert.pooler(first[:, None]))),
        last_attention=_last_attention,
    ),
    Family("roberta", _head_of_first, padding_offset=True, last_attention=_last_attention),
    Family("xlm-roberta", _head_of_first, padding_offset=True, last_attention=_last_attention),
    Family("camembert", _head_of_first, padding_offset=True, last_attention=_last_attention),
    Family(
        "distilbert",
        lambda model, first: model.classifier(model.dropout(F.relu(model.pre_classifier(first)))),
        last_attention=lambda base: (base.transformer.layer[-1].sa_layer_norm, 1),
    ),
    Family("electra", _head_of_first, last_attention=_last_attention),
    Family(
        "mpnet",
        _head_of_first,
        padding_offset=True,
        packed_encoder=own.mpnet,
        shared=("encoder.relative_attention_bias",),
        last_attention=_last_attention,
    ),
    Family(
        "modernbert",
        lambda model, pooled: model.classifier(model.drop(model.head(pooled))),
        # Without masks of its own it would make one of t x t for its layers with a window.
        packed_options={"attention_mask": {"full_attention": None, "sliding_attention": None}},
    ),
    Family(
        "deberta",
        _deberta_head,
        packed_encoder=own.deberta,
        shared=("encoder.rel_embeddings",),
        last_attention=_last_deberta_attention,
    ),
    Family(
        "deberta-v2",  # and v3, whose config names this type
        _deberta_head,
        packed_encoder=own.deberta,
        shared=("encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv"),
        last_attention=_last_deberta_attention,
    ),
    Family("bart", shared=("encoder.layernorm_embedding",)),
)
OTHER = Family("other")


def family_of(model) -> Family:
    """The record of this model's architecture, `OTHER` where it has none."""
    return next((family for family in FAMILIES if family.model_type == model.config.model_type), OTHER)


def num_positions(model) -> int | None:
    """Tokens that fit the model, None where its positions have no limit."""
    room = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(model.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return room - padding - 1 if room and padding is not None else room  # RoBERTa: 514 positions hold 512 tokens


def num_layers(model) -> int:
    """Layers that the hidden states of a pass come from: an encoder-decoder's are its decoder's."""
    names = ("decoder_layers", "num_decoder_layers") if model.config.is_encoder_decoder else ()
    return next((n for name in names if (n := getattr(model.config, name, None))), model.config.num_hidden_layers)


def final_linear(model) -> torch.nn.Linear:
    """The layer that turns features into logits: the last of its width. Raises InputError where there is none."""
    classes = model.config.num_labels
    found = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == classes]
    if not found:
        raise InputError(f"{type(model).__name__}: cannot find its final linear layer")
    return found[-1]


def read_by_head(model, features: torch.Tensor, input_ids: torch.Tensor | None) -> torch.Tensor:
    """(b, d): of what the final linear layer takes in, (b, d) or of a decoder (b, L, d), what the logits come from.
    transformers takes a decoder's last token that is not the padding token; input_ids: (b, L)."""
    if features.ndim == 2:
        return features
    real = input_ids != model.config.pad_token_id
    last = (torch.arange(real.shape[1], device=real.device) * real).argmax(1)
    return features[torch.arange(len(real), device=real.device), last]


def layers_of(model) -> torch.nn.ModuleList | None:
    """The layers, lowest first, of an encoder-decoder those of the encoder; None where the model shares or hides them."""
    lists = (m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList))
    return next((m for m in lists if len(m) == model.config.num_hidden_layers), None)


def freeze_lower_layers(model, count: int) -> None:
    """Keep the embeddings and the lowest `count` layers as they are; of an encoder-decoder, those of the encoder.
    Raises InputError where that cannot be done."""
    base, stack = model.base_model, layers_of(model)
    if stack is None:
        raise InputError(
            f"--freeze_layers: {type(model).__name__} shares or hides its layers; it can only be trained whole"
        )
    if count > len(stack):
        raise InputError(f"--freeze_layers {count}: the model has {len(stack)} layers")
    first = next(stack.parameters())
    for parameter in base.parameters():  # the embeddings stand before the layers
        if parameter is first:
            break
        parameter.requires_grad_(False)
    shared = (_at(base, path) for path in family_of(model).shared)
    for module in (*stack[:count], *filter(None, shared)):
        module.requires_grad_(False)


def _at(module, path: str):
    """The submodule at a dotted path, None where there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
