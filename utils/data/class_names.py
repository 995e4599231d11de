"""Class names: which output of a model means which label. The one place that knows, for every script.

A label is found by its name, never by its position: GLUE's TSV readers, the hub data set and published checkpoints
number the same three NLI classes in at least four ways. A checkpoint that only says LABEL_0 is resolved by a stated
order or by labelled data, else refused.
"""

import itertools
import math

import numpy as np

from utils.errors import InputError

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
NOT_ENTAILMENT = "not_entailment"
NLI_LABELS = (CONTRADICTION, ENTAILMENT, NEUTRAL)

_SYNONYMS = {
    "entail": ENTAILMENT, "entailed": ENTAILMENT, "entails": ENTAILMENT, "e": ENTAILMENT,
    "neutrals": NEUTRAL, "neutral_": NEUTRAL, "n": NEUTRAL,
    "contradict": CONTRADICTION, "contradictory": CONTRADICTION, "contradicts": CONTRADICTION, "c": CONTRADICTION,
    "non_entailment": NOT_ENTAILMENT, "nonentailment": NOT_ENTAILMENT, "notentailment": NOT_ENTAILMENT,
    "not_entailed": NOT_ENTAILMENT, "non_entailed": NOT_ENTAILMENT, "no_entailment": NOT_ENTAILMENT,
}  # fmt: skip

MAX_PERMUTED = 5  # classes whose orders are all tried: 120 of them

# Orders in circulation that --diagnose and the warnings call by name.
KNOWN_ORDERS = {
    "GLUE TSV readers": (CONTRADICTION, ENTAILMENT, NEUTRAL),
    "hub data set": (ENTAILMENT, NEUTRAL, CONTRADICTION),
    "old RoBERTa heads": (CONTRADICTION, NEUTRAL, ENTAILMENT),
    "AllenNLP": (ENTAILMENT, CONTRADICTION, NEUTRAL),
}


def canonical(name: str) -> str:
    """One spelling per class: lower case, underscores, the usual synonyms."""
    name = str(name).strip().lower().replace("-", "_").replace(" ", "_")
    return _SYNONYMS.get(name, name)


def stated_names(id2label: dict | None, labels: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """The class names that a config states, by class number; None where it only says LABEL_0, LABEL_1, ..., or bare numbers
    that are not themselves the names of the labels."""
    if not id2label:
        return None
    names = tuple(str(id2label[key]) for key in sorted(id2label, key=int))
    if labels and sorted(names) == sorted(labels):
        return names
    if all(name.upper() == f"LABEL_{i}" or name == str(i) for i, name in enumerate(names)):
        return None
    return names


def nli_labels(names: tuple[str, ...] | None, num_labels: int) -> tuple[str, ...]:
    """The labels of an NLI checkpoint, three-way or two-way, from its stated names or else its number of outputs.
    Raises InputError for other classes."""
    for labels in (NLI_LABELS, (ENTAILMENT, NOT_ENTAILMENT)):
        if sorted(map(canonical, names)) == sorted(labels) if names else num_labels == len(labels):
            return labels
    found = ", ".join(names) if names else f"{num_labels} unnamed outputs"
    raise InputError(
        f"the checkpoint has {found}; HANS needs entailment, neutral and contradiction, or entailment and not_entailment. "
        "Where two or three outputs mean these, say it with --label_order"
    )


def parse_order(text: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """`contradiction,entailment,neutral` -> canonical names. Raises InputError unless it names each label once."""
    names = tuple(canonical(part) for part in text.split(","))
    if sorted(names) != sorted(map(canonical, labels)):
        raise InputError(f"--label_order {text}: it must name each of {', '.join(labels)} exactly once")
    return names


def columns_of(labels: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:
    """int64 (C,): for each label, the model output that means it, `names` being the outputs' names.

    Raises InputError where the two do not name the same classes.
    """
    ours, theirs = [canonical(x) for x in labels], [canonical(x) for x in names]
    if sorted(ours) != sorted(theirs) or len(set(ours)) != len(ours):
        raise InputError(
            f"the checkpoint's classes are {', '.join(names)}, but the task has {', '.join(labels)}; it was fine-tuned "
            "for something else, or its id2label needs correcting"
        )
    return np.array([theirs.index(name) for name in ours], dtype=np.int64)


def score_orders(outputs: np.ndarray, gold: np.ndarray, labels: tuple[str, ...]) -> list[tuple[tuple[str, ...], float]]:
    """Accuracy under every possible naming of a model's outputs, best first.

    outputs: int64 (n,) argmax output number; gold: int64 (n,) index into `labels`. Returns (names by output number,
    accuracy) for all C! orders; of more than 5 classes for the stated one, the best and the second best.
    """
    classes = len(labels)
    confusion = np.zeros((classes, classes), dtype=np.int64)  # output x gold
    np.add.at(confusion, (outputs, gold), 1)
    scored = []
    few = classes <= MAX_PERMUTED
    for order in itertools.permutations(range(classes)) if few else _best_orders(confusion):
        right = sum(confusion[output, label] for output, label in enumerate(order))
        scored.append((tuple(labels[label] for label in order), right / len(gold)))
    return sorted(scored, key=lambda item: -item[1])


def _best_orders(confusion: np.ndarray) -> list[tuple[int, ...]]:
    """The stated order, the best, and the best of those that differ from it: each forbids one of its choices."""
    from scipy.optimize import linear_sum_assignment

    best = linear_sum_assignment(-confusion)[1]
    others = []
    for output, label in enumerate(best):
        forbidden = -confusion.astype(np.float64)
        forbidden[output, label] = confusion.sum() + 1
        others.append(linear_sum_assignment(forbidden)[1])
    second = max(others, key=lambda order: confusion[range(len(order)), order].sum())
    return list(dict.fromkeys(tuple(map(int, order)) for order in (range(len(best)), best, second)))


def clear_winner(scored: list, n: int) -> tuple[str, ...] | None:
    """The first order if it beats the second by more than chance could (4 standard errors) and by 5 points, else None."""
    margin = scored[0][1] - scored[1][1]
    return scored[0][0] if margin > max(0.05, 4 * math.sqrt(0.5 / n)) else None


def detect_order(outputs: np.ndarray, gold: np.ndarray, labels: tuple[str, ...], *, where: str) -> tuple[str, ...]:
    """The naming of the outputs that labelled data shows. Raises InputError where no order wins clearly."""
    scored = score_orders(outputs, gold, labels)
    winner = clear_winner(scored, len(gold))
    if winner is None:
        raise InputError(
            f"the checkpoint does not name its classes (LABEL_0, ...) and {len(gold)} labelled examples of {where} do "
            f"not settle their order: {format_orders(scored)}. State it with --label_order {','.join(labels)} (by "
            "output number)"
        )
    return winner


def format_orders(scored: list) -> str:
    return "; ".join(f"{','.join(order)} {100 * accuracy:.1f} %" for order, accuracy in scored)


def unresolved_message(labels: tuple[str, ...]) -> str:
    return (
        "the checkpoint only says LABEL_0, LABEL_1, ..., so which output means which class is unknown, and guessing it "
        f"has ruined published tables. State the order, for example --label_order {','.join(labels)} (the project's "
        "published MNLI checkpoints: contradiction,entailment,neutral), or let labelled data "
        "decide: --label_order auto of run_glue.py and test_hans.py"
    )


def evaluation_warnings(outputs: np.ndarray, gold: np.ndarray, labels: tuple[str, ...]) -> list[str]:
    """What in a labelled evaluation points to a mistake rather than to a model: another naming that scores far better,
    one answer for everything. `outputs` (n,) are already in label numbers, so the stated naming is the identity."""
    found = []
    if len(gold) > 1 and (outputs == outputs[0]).all() and not (gold == gold[0]).all():
        found.append(f"every example was called {labels[outputs[0]]}: the model is untrained or collapsed to one class")
    scored = score_orders(outputs, gold, labels)
    stated = dict(scored)[tuple(labels)]
    best, accuracy = scored[0]
    if best != tuple(labels) and accuracy - stated >= max(0.1, 4 * math.sqrt(0.5 / len(gold))):
        swapped = ", ".join(f"{a} -> {b}" for a, b in zip(labels, best, strict=True) if a != b)
        found.append(
            f"THE CLASS NAMES LOOK WRONG: as named, accuracy is {100 * stated:.1f} %; with other names for the same "
            f"outputs ({swapped}) it would be {100 * accuracy:.1f} %. The checkpoint's id2label, --label_order or the "
            "labels of the data are probably in another order"
        )
    return found
