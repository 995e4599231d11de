"""Micro-batches of similar length, and rows of an encoded split as tensors: padded or packed."""

from dataclasses import dataclass

import numpy as np
import torch

from utils.data.tokens import Encoded


@dataclass(frozen=True)
class Batch:
    """One forward pass. Padded: input_ids, attention_mask (b, L). Packed: input_ids (t,), sequence i at
    cu_seqlens[i]:cu_seqlens[i+1], attention_mask None. token_type_ids like input_ids, None without segments.
    rows: int64 (b,) numpy, the example_index of each sequence."""

    rows: np.ndarray
    input_ids: torch.Tensor
    token_type_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    cu_seqlens: torch.Tensor | None
    max_length: int


def micro_batches(lengths: np.ndarray, tokens: int, *, packed: bool = False, overhead: int = 64) -> list[np.ndarray]:
    """Cut a batch into micro-batches of similar length: positions (b,) of each, longest first.

    Each holds at most `tokens` tokens (a longer single sequence stands alone), counting the padding unless `packed`.
    Packed ones are as few as possible and of equal size; padded ones are cut so that padded tokens + `overhead` per
    micro-batch, the fixed cost of a pass in tokens' worth of time, are fewest, by dynamic programming over the
    distinct lengths.
    """
    if not len(lengths):  # a process's share of a batch smaller than the number of processes
        return []
    order = np.argsort(-lengths, kind="stable")
    if packed:
        ends = np.cumsum(lengths[order])
        pieces = -(-int(ends[-1]) // tokens)
        while True:
            cuts = np.searchsorted(ends, ends[-1] * np.arange(1, pieces) / pieces)
            parts = [part for part in np.split(order, cuts) if len(part)]
            if all(len(part) == 1 or lengths[part].sum() <= tokens for part in parts):
                return parts
            pieces += 1
    distinct, counts = np.unique(-lengths, return_counts=True)
    distinct = -distinct  # longest first
    ends = np.concatenate([[0], np.cumsum(counts)])
    cost, previous = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, dtype=np.int64)
    for j in range(1, len(distinct) + 1):
        # Lengths i..j-1 together: every row padded to distinct[i], in as many micro-batches as the budget asks for.
        padded = (ends[j] - ends[:j]) * distinct[:j]
        total = cost[:j] + padded + overhead * np.ceil(padded / tokens)
        previous[j] = np.argmin(total)
        cost[j] = total[previous[j]]
    cuts, j = [], len(distinct)
    while j:
        i = previous[j]
        rows = max(1, tokens // int(distinct[i]))
        size = int(ends[j] - ends[i])
        pieces = -(-size // rows)
        cuts.extend(int(ends[i]) + size * k // pieces for k in range(pieces))
        j = i
    return np.split(order, sorted(cuts)[1:])


def collate(data: Encoded, rows: np.ndarray, device: torch.device, *, packed: bool = False) -> Batch:
    """The batch of those rows, on `device`. Padding goes to the right, whatever the tokenizer would do: [CLS] is
    position 0 and positions count from the first token."""
    starts, lengths = data.offsets[rows], data.offsets[rows + 1] - data.offsets[rows]
    ends = np.cumsum(lengths)
    flat = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
    longest = int(lengths.max())
    if packed:
        cu_seqlens = np.concatenate([[0], ends]).astype(np.int32)
        types = None if data.token_type_ids is None else data.token_type_ids[flat].astype(np.int64)
        arrays = (data.input_ids[flat].astype(np.int64), types, None, cu_seqlens)
    else:
        # A multiple of 8 keeps CUDA's fast matrix kernels; on CPU every column costs.
        width = -(-longest // 8) * 8 if device.type == "cuda" else longest
        mask = np.arange(width) < lengths[:, None]
        ids = np.full(mask.shape, data.pad_id, dtype=np.int64)
        ids[mask] = data.input_ids[flat]
        types = None
        if data.token_type_ids is not None:
            types = np.zeros(mask.shape, dtype=np.int64)
            types[mask] = data.token_type_ids[flat]
        arrays = (ids, types, mask.astype(np.int64), None)
    return Batch(rows, *(_to_device(array, device) for array in arrays), longest)


def _to_device(array: np.ndarray | None, device: torch.device) -> torch.Tensor | None:
    if array is None:
        return None
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
