"""Online importance sampling: which examples make the next batch is decided while training, from what the model just
said. Each scheme is a batches object like UniformBatches, so the training loop does not know about any of them.

Unbiased: `rs2` (uniform), `grad_norm`, `infobatch`. Biased by design: `rho`.
"""

import numpy as np

from utils.data.logits import cross_entropy, error_norm
from utils.errors import InputError
from utils.models.distributed import Processes
from utils.selection.selection import Selection, effective_sample_size
from utils.training.batches import UniformBatches


class RandomSubsets(UniformBatches):
    """RS2: a fresh uniformly random subset of m examples every epoch, for as many steps as a static subset of that size
    would give. Okanovic et al. 2023, arXiv 2305.18424.

    Without replacement, as in the authors' command: the epochs are successive slices of one permutation of all n
    examples, and a new permutation follows when one is used up. So n / m epochs see every example once. With
    `replacement` the subsets of different epochs are independent. Every example is equally likely in every step, so
    the batch gradient is unbiased at weight 1.
    """

    def __init__(self, selection: Selection, *, subset_size: int, replacement: bool = False, **plan):
        super().__init__(selection, epoch_size=subset_size, **plan)
        self.subset_size, self.replacement = subset_size, replacement

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self.replacement:
            return self._permutation(epoch)[: self.subset_size]
        first = epoch * self.subset_size
        last = first + self.subset_size
        n = len(self.selection)
        stream = np.concatenate([self._permutation(number) for number in range(first // n, (last - 1) // n + 1)])
        start = first % n
        return stream[start : start + self.subset_size]


class GradNorm(UniformBatches):
    """Katharopoulos & Fleuret 2018, arXiv 1803.00942, Algorithm 1: look at B = 3b candidates, forward only, and draw b
    of them with replacement, p proportional to ||softmax(z) - y|| (their bound of the gradient norm), w = 1 / (B p).

    Sampling starts once it pays, that is when tau exceeds (B + 3b) / (3b), where a backward pass costs two forward ones.
    tau = sqrt(B sum p^2), smoothed over steps, is the factor by which a uniform batch would have to grow for the same
    variance. Until then batches are uniform. `mix` is the uniform share in p: it bounds every weight by
    1 / mix. The mean of w g over draws is the mean of g over the candidates, which are drawn uniformly.
    """

    presample = 3  # B / b, the paper's default
    smoothing = 0.9  # of tau
    mix = 0.1

    def __init__(self, selection: Selection, *, labels: np.ndarray, processes: Processes, **plan):
        super().__init__(selection, **plan)
        self._labels, self._processes = labels, processes
        self.threshold = (self.presample + 3) / 3
        self.tau = 0.0
        self.active_steps = 0
        self._pending: list[np.ndarray] = []
        self._uniform = True  # how the last batch was drawn
        self._ess = float(self.batch_size)

    def draw(self, step, probe=None):
        self._settle()
        self._uniform = self.tau <= self.threshold
        if self._uniform:
            self._ess = float(self.batch_size)
            return super().draw(step)
        rng = np.random.default_rng([self.seed, step, 1])
        size = min(self.presample * self.batch_size, len(self.selection))
        candidates = rng.choice(len(self.selection), size, replace=False)
        rows = self.selection.indices[candidates]
        p, tau = sampling_probability(error_norm(probe(rows), self._labels[rows]), self.mix)
        self.tau = self.smoothing * self.tau + (1 - self.smoothing) * tau
        picked = rng.choice(size, self.batch_size, p=p)
        weights = 1 / (size * p[picked])
        self.active_steps += 1
        self._ess = effective_sample_size(weights)
        return rows[picked], (self.selection.weights[candidates[picked]] * weights).astype(np.float32)

    def observe(self, rows, logits, losses):
        # Only a uniform batch shows what sampling would gain. tau cannot tell how this batch was drawn: it has changed since.
        if self._uniform:
            self._pending.append(error_norm(logits.float().cpu().numpy(), self._labels[rows]))

    def _settle(self):
        """Update tau with the scores of the last uniform batch; tau is the same in every process."""
        scores = np.concatenate(self._processes.gather(np.concatenate(self._pending or [np.empty(0)])))
        if len(scores):
            _, tau = sampling_probability(scores, self.mix)
            self.tau = self.smoothing * self.tau + (1 - self.smoothing) * tau if self.tau else tau
            self._pending = []

    def report(self):
        return {
            "tau": round(self.tau, 4),
            "variance_reduction": round(1 - 1 / self.tau**2, 4) if self.tau else 0.0,
            "effective_batch": round(self._ess, 1),
            "sampled_steps": self.active_steps,
        }

    def state_dict(self):
        self._settle()
        return {"tau": np.array([self.tau]), "active_steps": np.array([self.active_steps])}

    def load_state_dict(self, state):
        self.tau, self.active_steps = float(state["tau"][0]), int(state["active_steps"][0])


class InfoBatch(UniformBatches):
    """Qin et al. 2024, arXiv 2303.04947: each epoch leaves out, with probability r, each example whose last loss is
    below the mean; those of them that stay weigh 1 / (1 - r). The last 1 - delta of the training uses everything at
    weight 1. r = 0.5 and delta = 0.875 as in the paper.

    The boundary is counted in examples of the unpruned plan: of the epochs * n visits planned, the first
    round(delta * epochs * n) may be left out, the rest never is, wherever in an epoch that falls. The weighted sum over
    an epoch is unbiased for the sum over all. The number of steps shrinks; the learning rate follows the share of
    visits done, so it reaches its end with the training.
    """

    prune = 0.5
    delta = 0.875

    def __init__(self, selection: Selection, *, processes: Processes, **plan):
        super().__init__(selection, **plan)
        self._processes = processes
        self._epochs = max(1, round(plan["epochs"]))
        if self._epochs != plan["epochs"]:
            raise InputError(f"--online infobatch needs a whole number of epochs, not {plan['epochs']:g}")
        self.prunable_visits = round(self.delta * self._epochs * len(selection))
        self._losses = np.full(selection.n_total, np.inf, dtype=np.float32)  # inf: not seen, so never left out
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts = [0]  # first step of each epoch so far
        self._plan_epoch(0)

    def _plan_epoch(self, epoch: int) -> None:
        n = len(self.selection)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(n)
        lottery = rng.random(n)
        losses = self._losses[self.selection.indices[order]]
        known = np.isfinite(losses)
        easy = known & (losses < losses[known].mean()) if known.any() else known
        easy &= epoch * n + np.arange(n) < self.prunable_visits
        kept = ~easy | (lottery >= self.prune)
        self._order = order[kept]
        self._weights = np.where(easy, 1 / (1 - self.prune), 1.0)[kept].astype(np.float32)
        self.pruned_share = 1 - len(self._order) / n
        self._losses_at_start = self._losses.copy()
        self._epoch = epoch
        start = self._starts[epoch]
        steps = -(-len(self._order) // self.batch_size)
        self._starts = [*self._starts[: epoch + 1], start + steps]
        # Later epochs are counted in full until they are planned; the last plan is exact.
        self.num_steps = start + steps + (self._epochs - epoch - 1) * self.steps_per_epoch

    def epoch(self, step):
        return (
            self._epoch if step >= self._starts[self._epoch] else int(np.searchsorted(self._starts, step, "right")) - 1
        )

    def epoch_ends(self, step):
        return step + 1 == self._starts[self._epoch + 1]

    def epochs_done(self, steps):
        start, end = self._starts[self._epoch], self._starts[self._epoch + 1]
        return self._epoch + min(1.0, (steps - start) / (end - start))

    def progress(self, step):
        return min(1.0, self.epochs_done(step) / self._epochs)

    def draw(self, step, probe=None):
        if step == self._starts[self._epoch + 1]:
            self._settle()
            self._plan_epoch(self._epoch + 1)
        at = (step - self._starts[self._epoch]) * self.batch_size
        chosen = self._order[at : at + self.batch_size]
        return self.selection.indices[chosen], self.selection.weights[chosen] * self._weights[at : at + self.batch_size]

    def observe(self, rows, logits, losses):
        self._pending.append((rows, losses.float().cpu().numpy()))

    def _settle(self):
        rows = np.concatenate([r for r, _ in self._pending] or [np.empty(0, dtype=np.int64)])
        losses = np.concatenate([v for _, v in self._pending] or [np.empty(0, dtype=np.float32)])
        for their_rows, their_losses in zip(self._processes.gather(rows), self._processes.gather(losses), strict=True):
            self._losses[their_rows] = their_losses
        self._pending = []

    def report(self):
        return {"pruned_share": round(self.pruned_share, 4)}

    def state_dict(self):
        self._settle()
        return {
            "losses": self._losses,
            "losses_at_start": self._losses_at_start,
            "starts": np.array(self._starts),
            "epoch": np.array([self._epoch]),
        }

    def load_state_dict(self, state):
        self._starts = state["starts"].tolist()
        self._losses = state["losses_at_start"].copy()
        self._plan_epoch(int(state["epoch"][0]))
        self._losses = state["losses"].copy()


class ReducibleLoss(UniformBatches):
    """RHO-LOSS, Mindermann et al. 2022, arXiv 2206.07137: from 10 b candidates train on the b with the highest loss minus
    irreducible loss (that of a model trained on other data). Biased by design: no weight makes up for the choice.
    """

    presample = 10  # n_B / n_b, the paper's default

    def __init__(self, selection: Selection, *, labels: np.ndarray, irreducible_loss: np.ndarray, **plan):
        super().__init__(selection, **plan)
        self._labels, self._irreducible = labels, irreducible_loss
        self._gain = 0.0

    def draw(self, step, probe=None):
        rng = np.random.default_rng([self.seed, step, 1])
        size = min(self.presample * self.batch_size, len(self.selection))
        candidates = rng.choice(len(self.selection), size, replace=False)
        rows = self.selection.indices[candidates]
        loss = cross_entropy(probe(rows), self._labels[rows])
        reducible = loss - self._irreducible[rows]
        # Ties keep the order of the candidates, which is random.
        picked = np.argsort(-reducible, kind="stable")[: self.batch_size]
        self._gain = float(reducible[picked].mean() - reducible.mean())
        return rows[picked], self.selection.weights[candidates[picked]]

    def report(self):
        return {"reducible_loss_gain": round(self._gain, 4)}


def sampling_probability(scores: np.ndarray, mix: float) -> tuple[np.ndarray, float]:
    """p (B,) proportional to the scores, mixed with the uniform share `mix`; and tau = sqrt(B sum p^2), 1 where all
    scores are equal."""
    scores = np.asarray(scores, dtype=np.float64)
    total = scores.sum()
    uniform = np.full(len(scores), 1 / len(scores))
    p = (1 - mix) * scores / total + mix * uniform if total > 0 else uniform
    p /= p.sum()
    return p, float(np.sqrt(len(p) * (p**2).sum()))


def make_batches(
    scheme: str,
    selection: Selection,
    *,
    labels,
    processes,
    subset_size: int | None = None,
    replacement: bool = False,
    irreducible_loss: np.ndarray | None = None,
    **plan,
) -> UniformBatches:
    """The batches of a scheme. subset_size and replacement are for rs2, irreducible_loss float (n,) for rho."""
    if scheme == "grad_norm":
        return GradNorm(selection, labels=labels, processes=processes, **plan)
    if scheme == "infobatch":
        return InfoBatch(selection, processes=processes, **plan)
    if scheme == "rho":
        return ReducibleLoss(selection, labels=labels, irreducible_loss=irreducible_loss, **plan)
    return RandomSubsets(selection, subset_size=subset_size, replacement=replacement, **plan)
