"""Which examples make a batch, and how a batch becomes tensors: exact uniform batches, length-sorted micro-batches with
little padding (any device), or packed sequences with none (CUDA).
"""

from dataclasses import dataclass

import numpy as np
import torch

from utils.encoding import Encoded
from utils.selection import Selection


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


class UniformBatches:
    """Plain SGD's batches over a Selection: each epoch a fresh permutation (or the Selection's own order), cut into
    batches of exactly `batch_size`, the last one of an epoch smaller. `draw(step)` depends on (seed, step) alone, so
    a run continues anywhere without replaying anything.
    """

    def __init__(
        self, selection: Selection, *, batch_size: int, seed: int, epochs: float, max_steps: int | None = None
    ):
        self.selection = selection
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = -(-len(selection) // batch_size)
        self.num_steps = max_steps or max(1, round(epochs * self.steps_per_epoch))
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def epochs_done(self, steps: int) -> float:
        """Passes over the selection after so many steps."""
        return steps / self.steps_per_epoch

    def epoch_ends(self, step: int) -> bool:
        """Whether `step` is the last one of its epoch."""
        return (step + 1) % self.steps_per_epoch == 0

    def progress(self, step: int) -> float:
        """Share of the whole training done before `step`, in [0, 1]: where the learning-rate schedule stands."""
        return step / self.num_steps

    def draw(self, step: int, probe=None) -> tuple[np.ndarray, np.ndarray]:
        """Batch of that step: (example_index int64 (b,), weights float32 (b,))."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epoch_order(epoch)
        chosen = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        return self.selection.indices[chosen], self.selection.weights[chosen]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self.selection.ordered:
            return np.arange(len(self.selection))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.selection))

    def observe(self, rows: np.ndarray, logits: torch.Tensor, losses: torch.Tensor) -> None:
        """Told of every micro-batch's outcome; uniform batches do not depend on it."""

    def report(self) -> dict[str, float]:
        """Further numbers for the log."""
        return {}

    def state_dict(self) -> dict[str, np.ndarray]:
        """What `draw` depends on beside the step; arrays by name."""
        return {}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        pass
