"""Which examples make a batch: uniform batches over a Selection."""

import numpy as np
import torch

from utils.selection.selection import Selection


class UniformBatches:
    """Plain SGD's batches over a Selection: each epoch a fresh permutation (or the Selection's own order), cut into
    batches of exactly `batch_size`, the last one of an epoch smaller. `draw(step)` depends on (seed, step) alone, so
    a run continues anywhere without replaying anything. epoch_size: examples in an epoch, all of them by default.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        batch_size: int,
        seed: int,
        epochs: float,
        max_steps: int | None = None,
        epoch_size: int | None = None,
    ):
        self.selection = selection
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = -(-(epoch_size or len(selection)) // batch_size)
        self.num_steps = max_steps or max(1, round(epochs * self.steps_per_epoch))
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def epoch(self, step: int) -> int:
        """The epoch of a step; both count from 0."""
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
        """Batch of that step: (example_index int64 (b,), weights float32 (b,)).

        probe(example_index) -> logits float32 (b, C), a forward pass: for online schemes, which compare candidates by it.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epoch_order(epoch)
        chosen = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        return self.selection.indices[chosen], self.selection.weights[chosen]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self.selection.ordered:
            return np.arange(len(self.selection))
        return self._permutation(epoch)

    def _permutation(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(len(self.selection))

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
