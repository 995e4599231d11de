"""Forward passes over sequences laid end to end, with no padding token computed at all: logits and [CLS] embeddings of
the encoder families whose record in `families` has a packed head. Owns the attention function; batches are made in
`collate`, and the caller decides whether to pack.

Attention is the only layer in which tokens meet, so it alone must know where a sequence ends. It is registered with
transformers as "packed_varlen" and stays on the model: with `cu_seq_lens_q` among the arguments it keeps sequences
apart, without it it is transformers' own "sdpa", bit for bit. The boundaries travel as arguments, not as state, because
gradient checkpointing runs layers again during the backward pass, when any state around the forward pass is gone.

On CUDA the kernel is `torch.nn.attention.varlen` (FlashAttention, fp16 and bf16). It has no dropout, so training with
attention dropout (BERT's default is 0.1, ALBERT v2's 0), and float32, go through jagged nested tensors instead. Neither
reads a value back from the device. On CPU the sequences of similar length are padded to the longest of them, in attention
only, and go through plain matrix products: in bf16 torch's own kernel takes five times as long backward.

Timed on CPU only (2 threads, float32, BERT of 6 layers x 384, 32 sequences of 38 tokens on average and 112 at most):
forward and backward 360 ms, against 457 ms in length-sorted micro-batches (the best of four token budgets), 990 ms
padded to the longest and 1.3 s padded to 128; forward alone 123, 147, 377 and 432 ms. The CUDA code has run on the meta
device, which checks shapes, autograd, compilation and that nothing is read back, but neither results nor speed: it has
been neither run nor timed on a GPU.
"""

import contextlib
import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils.models.collate import micro_batches
from utils.models.dropout import dropout as cheap_dropout
from utils.models.families import family_of
from utils.models.packed_families import PaddedView, prepare, windowed_attention

ATTENTION = "packed_varlen"
GROUP_TOKENS = 1024  # of one attention call on the CPU, padding included: its scores stay in the cache


class PackedOutput(NamedTuple):
    """logits (n, C) by model output; cls (n, h), the last layer's hidden states of first tokens; hidden (t, h), those of all
    tokens, None where they were not asked for."""

    logits: torch.Tensor
    cls: torch.Tensor
    hidden: torch.Tensor | None


def supports_packing(model) -> bool:
    """Whether `packed_outputs` computes what the model's own padded forward pass computes, on the model's device.

    False for other architectures, decoders, an attention implementation chosen by the user, head sizes that
    FlashAttention does not take (a multiple of 8 up to 256), DeBERTa with talking heads, and GPUs older than Ampere.
    """
    model = getattr(model, "_orig_mod", model)
    family, config = family_of(model), model.config
    if family.packed_head is None or not type(model).__name__.endswith("ForSequenceClassification"):
        return False
    if getattr(config, "is_decoder", False):
        return False
    if family.packed_encoder:  # attention as a module: there is no implementation to choose, and no kernel's head size
        return not getattr(config, "talking_head", False)
    head_size = config.hidden_size // config.num_attention_heads
    if config._attn_implementation not in ("sdpa", ATTENTION) or head_size % 8 or head_size > 256:
        return False
    return model.device.type != "cuda" or torch.cuda.get_device_capability(model.device) >= (8, 0)


def packed_logits(
    model, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None, cu_seqlens: torch.Tensor, max_length: int
) -> torch.Tensor:
    """Logits (n, C) of n packed sequences; arguments as for `packed_outputs`."""
    return packed_outputs(model, input_ids, token_type_ids, cu_seqlens, max_length).logits


def packed_outputs(
    model,
    input_ids: torch.Tensor,
    token_type_ids: torch.Tensor | None,
    cu_seqlens: torch.Tensor,
    max_length: int,
    *,
    every_token: bool = False,
) -> PackedOutput:
    """Logits and [CLS] embeddings of n sequences, equal to the padded pass's up to float rounding.

    input_ids: int64 (t,), sequence i at cu_seqlens[i]:cu_seqlens[i + 1], none empty, no padding tokens; token_type_ids:
    int64 (t,), or None for families without segments; cu_seqlens: int32 (n + 1,) on the same device; max_length: at
    least the longest length, given because reading it from the device would wait for it. every_token: whether the hidden
    states of all tokens are wanted, not only those that the logits need. `model` may come from
    `torch.compile`: the packed pass is then compiled too, once for all shapes. Raises ValueError for models that
    `supports_packing` refuses. Leaves the model with attention "packed_varlen", which no saved config shows.
    """
    plain = getattr(model, "_orig_mod", model)
    if plain.config._attn_implementation != ATTENTION:
        if not supports_packing(plain):
            raise ValueError(f"{type(plain).__name__} cannot run packed; see supports_packing")
        if family_of(plain).packed_encoder:
            prepare(plain.base_model)
        else:
            _register_attention()
            plain.set_attn_implementation(ATTENTION)
    if plain is not model:
        return _compiled_forward()(plain, input_ids, token_type_ids, cu_seqlens, max_length)
    # Gradient checkpointing runs layers again later, without the hook.
    again = plain.training and any(getattr(module, "gradient_checkpointing", False) for module in plain.modules())
    last = None if every_token or again else family_of(plain).last_attention(plain.base_model)
    if last is None:
        return _forward(plain, input_ids, token_type_ids, cu_seqlens, max_length)
    with first_tokens_only(*last, cu_seqlens.long()[:-1]):
        return _forward(plain, input_ids, token_type_ids, cu_seqlens, max_length, shortened=True)


@contextlib.contextmanager
def first_tokens_only(attention, calls: int, starts: torch.Tensor):
    """Inside, the last of so many calls of a module hands on the tokens at `starts` (n,) alone: (1, t, h) -> (1, n, h).

    For the module whose output the last layer's feed-forward network reads. The logits need no other token of it, and that
    network is two thirds of a layer's operations.
    """
    left = calls

    def shorten(module, inputs, output):
        nonlocal left
        left -= 1
        if left:
            return output
        states, *rest = output if isinstance(output, tuple) else (output,)
        states = states.index_select(1, starts)
        return (states, *rest) if isinstance(output, tuple) else states

    handle = attention.register_forward_hook(shorten)
    try:
        yield
    finally:
        handle.remove()


def _forward(model, input_ids, token_type_ids, cu_seqlens, max_length, shortened=False) -> PackedOutput:
    """shortened: the last hidden states are those of first tokens alone."""
    bounds, tokens = cu_seqlens.long(), len(input_ids)
    starts = bounds[:-1]
    # The output size is given, so the device need not be asked for it.
    positions = torch.arange(tokens, device=bounds.device) - starts.repeat_interleave(bounds.diff(), output_size=tokens)
    family, base = family_of(model), model.base_model
    if family.padding_offset:
        positions = positions + base.embeddings.padding_idx + 1
    if family.packed_encoder:
        view = PaddedView.of(cu_seqlens, max_length, tokens)
        hidden = family.packed_encoder(base, input_ids, positions, token_type_ids, view)
    else:
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids[None]}
        lengths = {"cu_seq_lens_q": cu_seqlens, "max_length_q": max_length}
        options = segments | lengths | family.packed_options
        hidden = base(input_ids[None], position_ids=positions[None], **options).last_hidden_state[0]
    cls = hidden if shortened else hidden[starts]
    # ModernBERT's head takes the mean where its config says so.
    by_mean = getattr(model.config, "classifier_pooling", "cls") == "mean"
    pooled = mean_by_sequence(hidden, cu_seqlens) if by_mean else cls
    return PackedOutput(family.packed_head(model, pooled), cls, None if shortened else hidden)


def mean_by_sequence(hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Hidden states (t, h) of packed sequences -> (n, h), the mean of each over its tokens."""
    lengths = cu_seqlens.diff().long()
    rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths, output_size=len(hidden))
    return hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, rows, hidden) / lengths[:, None]


@functools.cache
def _compiled_forward():
    return torch.compile(_forward, dynamic=True)  # here, not at import: it loads the compiler


def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)  # of a padded batch; None, not (t, t), where none is given


def _attention(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    cu_seq_lens_q=None,
    max_length_q=None,
    sliding_window=None,
    **kwargs,
):
    """transformers' attention signature: query, key, value (1, heads, t, d) -> ((1, t, heads, d), no weights)."""
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if sliding_window is not None and max_length_q > sliding_window:  # else every token sees its whole sequence
        view = PaddedView.of(cu_seq_lens_q, max_length_q, query.shape[2])
        return windowed_attention(query, key, value, view, sliding_window, dropout=dropout, scaling=scaling), None
    if query.device.type == "cpu":
        return _attention_by_sequence(query, key, value, cu_seq_lens_q, max_length_q, dropout, scaling), None
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    if dropout or query.dtype == torch.float32:
        out = _attention_jagged(query, key, value, cu_seq_lens_q, max_length_q, dropout, scaling)
    else:
        from torch.nn.attention.varlen import varlen_attn  # here: it loads the compiler, a second that CPU runs save

        out = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling)
    return out[None], None


def _attention_by_sequence(query, key, value, cu_seqlens, max_length, dropout, scaling) -> torch.Tensor:
    """(1, heads, t, d) each -> (1, t, heads, d), one padded call for all sequences of similar length."""
    lengths = cu_seqlens.diff().tolist()
    if max(lengths) > max_length:  # the CUDA kernels would leave tokens out without a word
        raise ValueError(f"max_length is {max_length} and the longest packed sequence has {max(lengths)} tokens")
    places, groups = _length_groups(tuple(lengths))
    places = torch.from_numpy(places)
    heads, size = query.shape[1], query.shape[3]
    query = query * (size**-0.5 if scaling is None else scaling)
    sizes = [mask.size for mask in groups]
    padded = (x[0].transpose(0, 1).new_zeros(sum(sizes), heads, x.shape[3]) for x in (query, key, value))
    padded = [y.index_copy_(0, places, x[0].transpose(0, 1)) for x, y in zip((query, key, value), padded, strict=True)]
    out = []
    for mask, *parts in zip(groups, *(x.split(sizes) for x in padded), strict=True):
        q, k, v = (x.unflatten(0, mask.shape).transpose(1, 2) for x in parts)
        scores = q @ k.transpose(2, 3)
        if mask.any():
            scores = scores.masked_fill(torch.from_numpy(mask)[:, None, None], float("-inf"))
        shares = scores.softmax(-1, dtype=torch.float32).to(v.dtype)  # in bf16 torch's softmax is three times slower
        out.append((cheap_dropout(shares, dropout) @ v).transpose(1, 2).flatten(0, 1))
    return torch.cat(out).index_select(0, places)[None]


@functools.lru_cache(maxsize=16)  # the layers of one pass ask for the same
def _length_groups(lengths: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """How packed sequences are laid out when those of similar length are padded to the longest of them, group after
    group: the place of each token, int64 (t,), and for each group which places (n, width) are padding."""
    lengths = np.asarray(lengths)
    starts, groups, filled = np.empty_like(lengths), [], 0
    for group in micro_batches(lengths, GROUP_TOKENS):
        width = lengths[group].max()
        starts[group] = filled + width * np.arange(len(group))
        groups.append(np.arange(width) >= lengths[group][:, None])
        filled += width * len(group)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths), groups


def _attention_jagged(query, key, value, cu_seqlens, max_length, dropout, scaling) -> torch.Tensor:
    """(t, heads, d) each -> (t, heads, d), as nested tensors; both length bounds are given so that none is computed."""
    offsets = cu_seqlens.long()
    nested = [
        torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=1, max_seqlen=max_length).transpose(1, 2)
        for x in (query, key, value)
    ]
    return F.scaled_dot_product_attention(*nested, dropout_p=dropout, scale=scaling).transpose(1, 2).values()
