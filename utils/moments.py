"""When a training logs, evaluates and saves, and by which metric its best step is found: the flags, and the rule."""

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.command_line import interval, is_true, non_negative_float, positive_int
from utils.errors import InputError
from utils.settings import flag

STRATEGIES = ("no", "steps", "epoch")


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    log: bool
    evaluate: bool
    save: bool


@dataclass(frozen=True)
class MomentSettings:
    """When a training logs, evaluates and saves."""

    title: ClassVar[str] = "when to log, evaluate and save"
    folded: ClassVar[bool] = True
    logging_strategy: str = flag(
        "steps", "a line of log.jsonl every --logging_steps, after each epoch, or (no) after the last step alone",
        choices=STRATEGIES,
    )  # fmt: skip
    logging_steps: float = flag(50, "steps between lines of log.jsonl; below 1, a share of all steps", type=interval)
    logging_first_step: bool = flag(False, "log the first step too")
    eval_strategy: str | None = flag(
        None,
        "evaluate on every dev split while training: never, every --eval_steps, or after each epoch; the evaluation at the "
        "end comes in any case (default: steps where --eval_steps is given, else no)",
        "evaluation_strategy",
        choices=STRATEGIES,
    )
    eval_steps: float | None = flag(
        None, "steps between evaluations; below 1, a share of all steps (default: --logging_steps)", type=interval
    )
    save_strategy: str | None = flag(
        None,
        "checkpoints, from which a killed run continues: none, every --save_steps, after each epoch, or at each new best "
        "evaluation (default: every --save_steps and after each epoch)",
        choices=(*STRATEGIES, "best"),
    )
    save_steps: float = flag(500, "steps between checkpoints; below 1, a share of all steps", type=interval)
    save_total_limit: int = flag(
        2, "newest checkpoints kept while running; the best one is kept too", type=positive_int
    )
    load_best_model_at_end: bool = flag(
        False, "evaluate, save and predict with the weights of the best evaluation, of equal ones the first"
    )
    metric_for_best_model: str | None = flag(
        None,
        "which metric decides, on the first dev split (MNLI: dev_matched): accuracy or eval_acc, loss, f1, ...; with a "
        "split's name before it, as in mnli-mm_accuracy, on that one (default: loss)",
    )
    greater_is_better: bool | None = flag(
        None, "whether more of it is better (default: yes, but for a loss)", nargs="?", const=True, type=is_true
    )
    early_stopping_patience: int | None = flag(
        None, "stop after so many evaluations in a row without a better one", type=positive_int
    )
    early_stopping_threshold: float = flag(
        0.0, "how much better an evaluation must be to count for --early_stopping_patience", type=non_negative_float
    )

    @property
    def evaluates(self) -> str:
        """The strategy of evaluations while training."""
        return self.eval_strategy or ("steps" if self.eval_steps else "no")

    @property
    def judges(self) -> bool:
        """Whether it matters which evaluation is the best."""
        return bool(self.load_best_model_at_end or self.early_stopping_patience or self.save_strategy == "best")

    def check_moments(self) -> None:
        """Raise InputError for flags that need evaluations while there are none."""
        wanting = [
            name
            for name, given in {
                "--load_best_model_at_end": self.load_best_model_at_end,
                "--early_stopping_patience": self.early_stopping_patience,
                "--save_strategy best": self.save_strategy == "best",
            }.items()
            if given
        ]
        if wanting and self.evaluates == "no":
            raise InputError(f"{wanting[0]} needs evaluations while training: give --eval_strategy steps or epoch")

    def due(self, done: int, total: int, *, epoch_ends: bool, last: bool) -> Due:
        """What to do after `done` steps. total: steps of the whole training, of which shares are taken."""

        def comes(strategy: str, steps: float) -> bool:
            every = steps if steps >= 1 else math.ceil(steps * total)
            return done % every == 0 if strategy == "steps" else strategy == "epoch" and epoch_ends

        saving = (self.save_strategy,) if self.save_strategy else ("steps", "epoch")
        return Due(
            log=comes(self.logging_strategy, self.logging_steps) or last or (done == 1 and self.logging_first_step),
            # The weights of the last step are evaluated at the end anyway, unless they must first be compared.
            evaluate=self.judges if last else comes(self.evaluates, self.eval_steps or self.logging_steps),
            save=any(comes(strategy, self.save_steps) for strategy in saving),
        )
