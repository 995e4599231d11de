"""Group DRO: the weights of the groups follow their losses, so that the group with the worst loss counts most."""

import numpy as np

from utils.models.distributed import Processes
from utils.training.shortcut import Groups


class GroupDro:
    """Batches of another object, reweighted: the mean loss of a step becomes sum_g q_g x mean loss of group g in the batch.

    After each step q_g is multiplied by exp(step_size x loss of group g in that batch) and q normalised; a group that the
    batch lacks counts as loss 0. Sagawa et al. 2020, arXiv 1911.08731, Algorithm 1. There q changes before the step of
    the weights and here after it: the batch goes through the model in micro-batches, whose losses are all known at the
    end only. So the step with number s uses the losses before s, and q starts uniform.

    The weights w of the batches count within a group, and their sum is kept: with one group nothing changes. Every
    process has the same q. Everything else is that of the other object.
    """

    def __init__(self, batches, groups: Groups, *, step_size: float, processes: Processes):
        self._batches, self._groups, self._step_size, self._processes = batches, groups, step_size, processes
        count = len(groups.names)
        self.q = np.full(count, 1 / count)
        self._mass: np.ndarray | None = None  # (G,) sum of weights in the batch that was drawn last
        self._sums = np.zeros(count)  # (G,) sum of weight x loss in it, of this process

    def __getattr__(self, name: str):
        return getattr(self._batches, name)

    def draw(self, step: int, probe=None) -> tuple[np.ndarray, np.ndarray]:
        self._settle()
        rows, weights = self._batches.draw(step, probe)
        group = self._groups.of[rows]
        self._mass = np.bincount(group, weights, len(self.q))
        factor = self.q * weights.sum(dtype=np.float64) / np.maximum(self._mass, 1e-12)
        # `observe` looks weights up by row, so a row that was drawn more than once gets its mean weight.
        self._rows, place = np.unique(rows, return_inverse=True)
        self._weights = np.bincount(place, weights) / np.bincount(place)
        return rows, (weights * factor[group]).astype(np.float32)

    def observe(self, rows: np.ndarray, logits, losses) -> None:
        self._batches.observe(rows, logits, losses)
        weighted = self._weights[np.searchsorted(self._rows, rows)] * losses.double().cpu().numpy()
        self._sums += np.bincount(self._groups.of[rows], weighted, len(self.q))

    def _settle(self) -> None:
        """Update q by the losses of the last batch. Every process must call it."""
        if self._mass is None:
            return
        sums = np.sum(self._processes.gather(self._sums), axis=0)
        loss = np.where(self._mass > 0, sums / np.maximum(self._mass, 1e-12), 0.0)
        q = self.q * np.exp(self._step_size * (loss - loss.max()))  # the largest is taken off: no overflow, the same q
        self.q = q / q.sum()
        self._sums[:], self._mass = 0.0, None

    def report(self) -> dict[str, float]:
        shares = {f"q({name})": round(float(q), 4) for name, q in zip(self._groups.names, self.q, strict=True)}
        return self._batches.report() | shares

    def state_dict(self) -> dict[str, np.ndarray]:
        self._settle()
        return self._batches.state_dict() | {"group_weights": self.q}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        self._batches.load_state_dict({name: value for name, value in state.items() if name != "group_weights"})
        self.q = state["group_weights"].copy()
