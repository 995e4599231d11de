"""One run: what its stages share, and how it is evaluated."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from utils.data.examples import Examples
from utils.data.tasks import Task
from utils.data.tokens import Encoded
from utils.flags import RunSettings
from utils.models.session import Session
from utils.run_directory import RunDirectory
from utils.training.evaluate import add_to_eval_log, evaluate
from utils.training.evaluations import Evaluations, deciding_metric
from utils.training.trackers import Trackers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What every stage of one run needs.

    examples and data: the splits by name, as text and as tokens; trackers: are told what happens.
    """

    settings: RunSettings
    task: Task
    session: Session
    directory: RunDirectory
    examples: dict[str, Examples]
    data: dict[str, Encoded]
    trackers: Trackers = dataclasses.field(default_factory=Trackers)

    @property
    def folder(self) -> Path:
        return self.directory.path

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.session.processes.main

    def evaluate(self, split: str, *, folder: Path | None = None) -> dict:
        """Metrics of one dev split. With `folder`, its result and prediction files."""
        most = self.settings.max_eval_samples
        return evaluate(self.session, self.examples[split], self.data[split], max_samples=most, folder=folder)

    def evaluations(self) -> Evaluations:
        """The evaluations while training: on every dev split, into eval_log.json and to the trackers."""
        deciding, metric, sign = deciding_metric(self.settings, self.task)

        def evaluate_all(done: int) -> float:
            found = {split: self.evaluate(split) for split in self.task.dev}
            for split, metrics in found.items():
                shown = " ".join(f"{key} {value:.4f}" for key, value in metrics.items() if key != "n")
                logger.info("step %d %s %s", done, split, shown)
                if self.main:
                    add_to_eval_log(self.folder / "eval_log.json", done, split, metrics)
            self.track(done, found)
            return found[deciding][metric]

        if self.settings.judges:
            logger.info("evaluations are compared by %s on %s", metric, deciding)
        return Evaluations(self.settings, evaluate_all if self.settings.do_eval else None, sign)

    def track(self, step: int, found: dict[str, dict]) -> None:
        """Tell the trackers the metrics of the dev splits."""
        for number, (split, metrics) in enumerate(found.items()):
            self.trackers.log_evaluation(step, metrics, split=self.task.dev[split].short if number else None)
