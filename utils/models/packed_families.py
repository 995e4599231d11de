"""Packed passes of encoders whose attention is a module of their own, with relative positions: MPNet and DeBERTa.

Embeddings, projections, feed-forward layers and norms see the tokens laid end to end. Attention alone sees the sequences
as a padded batch (n, L), since a relative position is a matter of one sequence; so does DeBERTa v2's convolution. The
view travels in the place of the attention mask, as an argument: gradient checkpointing runs layers again in the backward
pass, when any state around the forward pass is gone.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class PaddedView:
    """n sequences laid end to end, (1, t, ...), seen as a padded batch (n, L, ...) and back. Nothing is read back from
    the device. index: int64 (t,), place of each token among n x L; mask: bool (n, L), True at tokens."""

    index: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, cu_seqlens: torch.Tensor, max_length: int, tokens: int) -> "PaddedView":
        """The view of these sequences. Raises ValueError, on a CPU, where one is longer than max_length."""
        bounds = cu_seqlens.long()
        lengths, columns = bounds.diff(), torch.arange(max_length, device=bounds.device)
        if bounds.device.type == "cpu" and int(lengths.max()) > max_length:
            raise ValueError(f"max_length is {max_length} and the longest packed sequence has {lengths.max()} tokens")
        gaps = torch.arange(len(lengths), device=bounds.device) * max_length - bounds[:-1]
        index = torch.arange(tokens, device=bounds.device) + gaps.repeat_interleave(lengths, output_size=tokens)
        return cls(index, columns < lengths[:, None])

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """(1, t, ...) -> (n, L, ...), zeros at the padding."""
        flat = x.new_zeros(self.mask.numel(), *x.shape[2:]).index_copy(0, self.index, x[0])
        return flat.view(*self.mask.shape, *x.shape[2:])

    def unpad(self, x: torch.Tensor) -> torch.Tensor:
        """(n, L, ...) -> (1, t, ...)."""
        return x.flatten(0, 1).index_select(0, self.index)[None]

    def attend(self, query, key, value, bias, *, dropout: float, scale: float | None = None) -> torch.Tensor:
        """(n, heads, L, d) each, bias broadcast to (n, heads, L, L) or 0 -> (1, t, heads x d)."""
        hidden = torch.zeros_like(self.mask, dtype=query.dtype).masked_fill(~self.mask, -torch.inf)
        bias = hidden[:, None, None] + bias
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout, scale=scale
        )
        return self.unpad(out.transpose(1, 2).flatten(2))


def windowed_attention(query, key, value, view: PaddedView, window: int, *, dropout, scaling) -> torch.Tensor:
    """(1, heads, t, d) each -> (1, t, heads, d): a token sees the tokens of its sequence less than `window` away."""
    query, key, value = (view.pad(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value))
    at = torch.arange(view.mask.shape[1], device=query.device)
    away = (at[:, None] - at).abs()
    # Padding sees itself: a token that sees nothing would give NaN gradients.
    seen = (away < window) & view.mask[:, None, None] | (away == 0)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling)
    return view.unpad(out.transpose(1, 2))


def mpnet(base, input_ids, positions, segments, view: PaddedView) -> torch.Tensor:
    """Last hidden states (t, h) of an MPNetModel; input_ids and positions int64 (t,); it has no segments."""
    hidden = base.embeddings(input_ids=input_ids[None], position_ids=positions[None])
    bias = base.encoder.compute_position_bias(view.mask[:1])  # its size is all that counts
    for layer in base.encoder.layer:
        hidden = layer(hidden, view, bias)[0]
    return hidden[0]


def _mpnet_attention(module, hidden, view, position_bias, output_attentions):
    shape = (module.num_attention_heads, module.attention_head_size)
    query, key, value = (
        view.pad(project(hidden)).unflatten(-1, shape).transpose(1, 2) for project in (module.q, module.k, module.v)
    )
    return (module.o(view.attend(query, key, value, position_bias, dropout=_dropout(module))),)


def deberta(base, input_ids, positions, segments, view: PaddedView) -> torch.Tensor:
    """Last hidden states (t, h) of a DebertaModel or DebertaV2Model; input_ids, positions, segments int64 (t,)."""
    encoder = base.encoder
    hidden = base.embeddings(
        input_ids=input_ids[None],
        position_ids=positions[None],
        token_type_ids=None if segments is None else segments[None],
    )
    relative_positions = encoder.get_rel_pos(view.mask[:1, :, None])  # its size is all that counts
    rel_embeddings = encoder.get_rel_embedding()
    for number, layer in enumerate(encoder.layer):
        before = hidden
        hidden = layer(hidden, view, relative_pos=relative_positions, rel_embeddings=rel_embeddings)[0]
        if number == 0 and getattr(encoder, "conv", None) is not None:
            hidden = view.unpad(encoder.conv(view.pad(before), view.pad(hidden), view.mask.long()))
    return hidden[0]


def _deberta_attention(module, hidden, view, output_attentions, query_states, relative_pos, rel_embeddings):
    projected = module.transpose_for_scores(view.pad(module.in_proj(hidden)))
    query, key, value = projected.chunk(3, dim=-1)
    factor = 1 + len(module.pos_att_type)
    query = query + module.transpose_for_scores(module.q_bias[None, None])
    query = query / (module.attention_head_size * factor) ** 0.5
    value = value + module.transpose_for_scores(module.v_bias[None, None])
    bias = 0
    if module.relative_attention:
        bias = module.disentangled_att_bias(query, key, relative_pos, module.pos_dropout(rel_embeddings), factor)
    return view.attend(query, key, value, bias, dropout=_dropout(module), scale=1.0), None


def _deberta_v2_attention(module, hidden, view, output_attentions, query_states, relative_pos, rel_embeddings):
    heads = module.num_attention_heads
    projections = (module.query_proj, module.key_proj, module.value_proj)
    # (n x heads, L, d) each, as the module's own method wants them
    query, key, value = (module.transpose_for_scores(view.pad(project(hidden)), heads) for project in projections)
    factor = 1 + sum(kind in module.pos_att_type for kind in ("c2p", "p2c"))
    bias = 0
    if module.relative_attention:
        bias = module.disentangled_attention_bias(
            query, key, relative_pos, module.pos_dropout(rel_embeddings), factor
        ).unflatten(0, (-1, heads))
    query, key, value = (x.unflatten(0, (-1, heads)) for x in (query, key, value))
    scale = (module.attention_head_size * factor) ** -0.5
    return view.attend(query, key, value, bias, dropout=_dropout(module), scale=scale), None


def _dropout(module) -> float:
    return module.dropout.p if module.training else 0.0


_ATTENTION = {"mpnet": _mpnet_attention, "deberta": _deberta_attention, "deberta-v2": _deberta_v2_attention}


def prepare(base) -> None:
    """Have the attention modules regroup where their mask is a PaddedView; with any other mask they are what they were."""
    for layer in base.encoder.layer:
        module = layer.attention.attn if base.config.model_type == "mpnet" else layer.attention.self
        if not hasattr(module, "regroups"):
            module.__class__ = _regrouping(type(module), _ATTENTION[base.config.model_type])


@functools.cache
def _regrouping(kind: type, attend) -> type:
    def forward(self, hidden_states, attention_mask=None, *args, **kwargs):
        if isinstance(attention_mask, PaddedView):
            return attend(self, hidden_states, attention_mask, *args, **kwargs)
        return kind.forward(self, hidden_states, attention_mask, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "regroups": True})
