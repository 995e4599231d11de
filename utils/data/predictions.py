"""predictions_<split>.tsv: what a run answers on each example of a split. Written by evaluations; reports, benchmarks and the
explorer read it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.tasks import Task
from utils.errors import InputError
from utils.files import write_text

COLUMNS = ["index", "gold", "prediction"]
PROBABILITY = "p_"  # before the name of a class


@dataclass(frozen=True)
class Predictions:
    """index: int64 (n,), rows of the split; gold, answers: n class names, or n numbers as text for regression; p_gold:
    float64 (n,), probabilities of the gold labels, NaN for regression."""

    index: np.ndarray
    gold: list[str]
    answers: list[str]
    p_gold: np.ndarray

    @property
    def one_answer(self) -> bool:
        """Whether there are several examples, and all have the same answer."""
        return len(self.answers) > 1 and len(set(self.answers)) == 1


def write_predictions(path, task: Task, index, gold, predictions, probabilities) -> None:
    """index: (n,); gold and predictions: (n,), numbers of classes, or scores for regression; probabilities: (n, C), not
    looked at for regression."""
    if task.regression:
        header = COLUMNS
        lines = [f"{i}\t{g:g}\t{p:.6f}" for i, g, p in zip(index, gold, predictions, strict=True)]
    else:
        header = [*COLUMNS, *(f"{PROBABILITY}{name}" for name in task.labels)]
        lines = [
            "\t".join([str(i), task.labels[g], task.labels[k], *(f"{p:.6f}" for p in row)])
            for i, g, k, row in zip(index, gold, predictions, probabilities, strict=True)
        ]
    write_text(path, "\n".join(["\t".join(header), *lines]) + "\n")


def read_predictions(path) -> Predictions:
    """Raises InputError, naming the line, where it is another file or was cut short, or where there is no line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; run_glue.py --do_eval writes predictions_*.tsv") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a table of text") from None
    header, *lines = (line.split("\t") for line in text.removesuffix("\n").split("\n"))
    if header[:3] != COLUMNS or not lines:
        raise InputError(_other_file(path))
    places = {name: place for place, name in enumerate(header)}
    index, gold, answers, p_gold = [], [], [], []
    for number, line in enumerate(lines, start=2):
        try:
            if len(line) != len(header):
                raise ValueError
            index.append(np.int64(int(line[0])))
            p_gold.append(float(line[places[f"{PROBABILITY}{line[1]}"]]) if len(header) > 3 else np.nan)
        except (ValueError, LookupError, OverflowError):
            raise InputError(_other_file(f"{path}: line {number}")) from None
        gold.append(line[1])
        answers.append(line[2])
    return Predictions(np.array(index, dtype=np.int64), gold, answers, np.array(p_gold))


def _other_file(where) -> str:
    return (
        f"{where}: expected index, gold label and prediction, as run_glue.py --do_eval writes them; the file was cut short or "
        "is another one"
    )
