"""Evaluation on challenge sets that are files: accuracy by group, whatever names the set gives its classes."""

from pathlib import Path

import numpy as np

from utils.data.class_names import ENTAILMENT, NLI_LABELS, NOT_ENTAILMENT, canonical
from utils.data.grouped import GroupedSet, read_grouped
from utils.data.tasks import Task
from utils.errors import InputError
from utils.files import write_text
from utils.flags import RunSettings
from utils.models.session import Session

_TWO = {ENTAILMENT, NOT_ENTAILMENT}


def read_challenges(settings: RunSettings, task: Task) -> list[GroupedSet]:
    """The sets of --challenge. Raises InputError where one cannot be read, or its classes are not those of the task."""
    sets = read_grouped(settings.challenge, task)
    for challenge in sets:
        _names(challenge, task)
    return sets


def evaluate_challenge(session: Session, task: Task, challenge: GroupedSet, folder: Path) -> dict:
    """Accuracy by group, the worst of them, their mean, and over all examples; writes predictions_challenge_<name>.tsv.

    The best of the model's classes is taken first. Where either side only tells entailment from the rest, both are then
    merged to these two, as for HANS.
    """
    examples = challenge.examples
    logits = session.predict(session.encode(examples), description=f"evaluating {challenge.name}")
    answer_names, gold_names = _names(challenge, task)
    answers = [answer_names[i] for i in logits.argmax(1)]
    gold = [gold_names[i] for i in examples.labels]
    right = np.array([a == b for a, b in zip(answers, gold, strict=True)])
    names, of_group = np.unique(challenge.groups, return_inverse=True)
    sizes = np.bincount(of_group)
    accuracy = np.bincount(of_group, weights=right) / sizes
    if session.processes.main:
        rows = zip(range(len(right)), challenge.groups, gold, answers, strict=True)
        lines = ["index\tgroup\tgold\tprediction", *("\t".join(map(str, row)) for row in rows)]
        write_text(folder / f"predictions_challenge_{challenge.name}.tsv", "\n".join(lines) + "\n")
    return {
        "worst_group": float(accuracy.min()),
        "mean_over_groups": float(accuracy.mean()),
        "accuracy": float(right.mean()),
        "n": len(right),
        "groups": dict(zip(names.tolist(), accuracy.tolist(), strict=True)),
        "group_sizes": dict(zip(names.tolist(), sizes.tolist(), strict=True)),
    }


def _names(challenge: GroupedSet, task: Task) -> tuple[list[str], list[str]]:
    """What each class of the task, and each class of the set, is called in the comparison. Raises InputError where the two
    do not name the same things."""
    ours, theirs = (
        [canonical(name) for name in task.labels],
        [canonical(name) for name in challenge.examples.label_names],
    )
    if set(theirs) <= set(ours):
        return ours, theirs
    if (ENTAILMENT in ours and set(theirs) <= _TWO) or (set(ours) == _TWO and set(theirs) <= set(NLI_LABELS)):
        return [_merged(name) for name in ours], [_merged(name) for name in theirs]
    numbers = " Numbers say nothing without names." if all(name.isdigit() for name in theirs) else ""
    raise InputError(
        f"--challenge {challenge.name}: {challenge.examples.source} has the classes "
        f"{', '.join(challenge.examples.label_names[:20])}, but {task.name} has {', '.join(task.labels[:20])}.{numbers}"
    )


def _merged(name: str) -> str:
    return name if name == ENTAILMENT else NOT_ENTAILMENT
