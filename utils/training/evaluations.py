"""The evaluations of a running training: their log, which one was the best, and whether it is time to stop."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from utils.data.metrics import SPELLINGS
from utils.data.tasks import Task
from utils.errors import InputError
from utils.moments import MomentSettings
from utils.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)


@dataclass
class Evaluations:
    """What the training loop needs to know of evaluations.

    evaluate(steps done) -> the value that decides which evaluation is the best. sign: 1 where more is better, -1 where less
    is. history: [steps done, value] of each evaluation so far; it is kept in every
    checkpoint, so a continued run finds the same best step and has waited as long.
    """

    settings: MomentSettings
    evaluate: Callable[[int], float] | None = None
    sign: int = 1
    history: list = field(default_factory=list)

    def run(self, done: int) -> bool:
        """Evaluate after `done` steps; returns whether the settings compare evaluations and this is the best so far."""
        if self.evaluate is None:
            return False
        self.history.append([done, self.evaluate(done)])
        if self.enough:
            logger.info("step %d: no better evaluation since step %d; stopping early", done, self.best_step)
        return self.settings.judges and self.best_step == done

    @property
    def best(self) -> list | None:
        """[steps done, value] of the best evaluation, of equal ones the first."""
        return self._look_back()[0]

    @property
    def best_step(self) -> int | None:
        return self.best[0] if self.settings.judges and self.best else None

    @property
    def enough(self) -> bool:
        """Whether --early_stopping_patience is used up."""
        patience = self.settings.early_stopping_patience
        return patience is not None and self._look_back()[1] >= patience

    def _look_back(self) -> tuple[list | None, int]:
        """The best evaluation, and how many came since the last one that was better by more than the threshold."""
        best, waited = None, 0
        for entry in self.history:
            gain = math.inf if best is None else self.sign * (entry[1] - best[1])
            waited = 0 if gain > self.settings.early_stopping_threshold else waited + 1
            best = entry if gain > 0 else best
        return best, waited

    def load_best(self, checkpoints: Checkpoints, model) -> None:
        """Give the model the weights of the best evaluation, where --load_best_model_at_end asks for it."""
        if self.settings.load_best_model_at_end and self.best:
            checkpoints.load_weights(self.best[0], model)
            logger.info("the best evaluation was after step %d (%.5f); its weights are taken", *self.best)

    def summary(self) -> dict:
        """For results.json: the best step and its value, and whether the training stopped early."""
        if not (self.settings.judges and self.best):
            return {}
        return {"best_step": self.best[0], "best_value": self.best[1], "stopped_early": self.enough}


def deciding_metric(settings: MomentSettings, task: Task) -> tuple[str, str, int]:
    """(dev split, key of its metrics, sign) by which evaluations are compared. Raises InputError for unknown names."""
    asked = (settings.metric_for_best_model or "loss").removeprefix("eval_")
    split, name = next(iter(task.dev), ""), asked  # a data set without a dev split is never evaluated
    for other, record in task.dev.items():
        for spelling in (other, record.short):
            if asked.startswith(f"{spelling}_"):
                split, name = other, asked.removeprefix(f"{spelling}_")
    known = {*task.metrics, "loss"}
    found = [metric for metric in known if name in (metric, SPELLINGS.get(metric))]
    if not found:
        raise InputError(
            f"--metric_for_best_model {settings.metric_for_best_model}: {task.name} has "
            f"{', '.join(f'eval_{metric}' for metric in (*task.metrics, 'loss'))}"
        )
    greater = found[0] != "loss" if settings.greater_is_better is None else settings.greater_is_better
    return split, f"eval_{found[0]}", 1 if greater else -1
