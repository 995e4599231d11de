"""Evaluation of one split: metrics once over all its rows, and the files that hold them and the predictions."""

import logging
from pathlib import Path

import numpy as np
import torch

from utils.data.class_names import evaluation_warnings
from utils.data.examples import Examples
from utils.data.metrics import compute_metrics
from utils.data.predictions import write_predictions
from utils.data.tokens import Encoded
from utils.errors import InputError
from utils.files import read_json, write_json, write_text
from utils.models.session import Session
from utils.selection.selection import random_ranking
from utils.training.objectives import per_example_loss

logger = logging.getLogger(__name__)

SAMPLE_SEED = 0  # of --max_eval_samples: every run is evaluated on the same rows


def evaluate(
    session: Session, examples: Examples, data: Encoded, *, max_samples: int | None = None, folder: Path | None = None
) -> dict:
    """Metrics of one dev split, with the loss and the number of rows. With `folder`, its result and prediction files."""
    task = examples.task
    rows = np.arange(len(examples))
    if max_samples and max_samples < len(rows):
        rows = np.sort(random_ranking(len(rows), SAMPLE_SEED)[:max_samples])
    logits = session.predict(data, rows, description=f"evaluating {examples.split}")
    gold = examples.labels[rows]
    predictions = logits[:, 0] if task.regression else logits.argmax(1)
    metrics = {f"eval_{name}": value for name, value in compute_metrics(task.metrics, predictions, gold).items()}
    loss = per_example_loss(torch.from_numpy(logits), torch.from_numpy(np.ascontiguousarray(gold)))
    metrics["eval_loss"] = float(loss.double().mean())
    metrics["n"] = len(rows)
    for warning in [] if task.regression else evaluation_warnings(predictions, gold, task.labels):
        logger.warning("%s: %s", examples.split, warning)
    if folder and session.processes.main:
        short = task.dev[examples.split].short
        write_text(folder / f"eval_results_{short}.txt", "".join(f"{k} = {v}\n" for k, v in metrics.items()))
        probabilities = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        path = folder / f"predictions_{examples.split}.tsv"
        write_predictions(path, task, rows, gold, predictions, probabilities)
    return metrics


def add_to_eval_log(path: Path, step: int, split: str, metrics: dict) -> None:
    """Append an evaluation during training to eval_log.json. A continued run replaces what it evaluates again."""
    history = read_json(path, list) if path.exists() else []
    try:
        earlier = [
            entry for entry in history if entry["step"] < step or (entry["split"] != split and entry["step"] == step)
        ]
    except (KeyError, TypeError):
        raise InputError(f"{path}: not an eval_log.json of this project; move it away") from None
    write_json(path, [*earlier, {"step": step, "split": split, **metrics}])


def write_server_file(
    session: Session, examples: Examples, data: Encoded, folder: Path, *, max_samples: int | None = None
) -> None:
    """Write index and prediction of the first `max_samples` examples or all, class names as the task spells them: for GLUE,
    what gluebenchmark.com takes."""
    task = examples.task
    rows = np.arange(len(data))[:max_samples]
    logits = session.predict(data, rows, description=f"predicting {examples.split}")
    if not session.processes.main:
        return
    if task.regression:
        scores = logits[:, 0].clip(*task.score_range) if task.score_range else logits[:, 0]
        answers = [f"{value:.3f}" for value in scores]
    else:
        answers = [task.server_labels[i] for i in logits.argmax(1)]
    lines = ["index\tprediction", *(f"{i}\t{answer}" for i, answer in enumerate(answers))]
    write_text(folder / task.test[examples.split].server, "\n".join(lines) + "\n")
