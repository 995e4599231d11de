"""What an objective is told of the shortcut: the probabilities of a bias model, those of a teacher, groups of examples.

Each is read from the file that a flag names, or made from the training split alone. No torch is imported here.
"""

import dataclasses
import hashlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.examples import Examples
from utils.data.logits import softmax
from utils.data.overlap import supports_heuristics
from utils.data.tables import read_table, read_tsv
from utils.errors import InputError
from utils.files import array_json, json_array, read_npz, write_npz
from utils.flags import RunSettings
from utils.selection.bias_models import hypothesis_bias, overlap_bias
from utils.selection.ingredients import InputMaker, MakerSettings
from utils.selection.selection import Selection
from utils.selection.strategies import load_inputs

logger = logging.getLogger(__name__)

BIAS_FILE = "bias.npz"
FLOOR = 1e-6  # the least probability of which a logarithm or a power is taken
NEED_BIAS = ("poe", "learned_mixin", "conf_reg")


@dataclass(frozen=True)
class Groups:
    """of: int64 (n,), the group of each example, -1 where it is not trained on; names: of the groups."""

    of: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Shortcut:
    """p_bias and teacher: float32 (n, C), probabilities by class; groups; each None where the objective needs none.

    facts: what results.json says of them, with the seconds that they took.
    """

    p_bias: np.ndarray | None = None
    teacher: np.ndarray | None = None
    groups: Groups | None = None
    facts: dict = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A hash of everything that the objective is told."""
        known = [self.p_bias, self.teacher, self.groups and self.groups.of]
        return hashlib.sha256(b"".join(b"-" if part is None else part.tobytes() for part in known)).hexdigest()[:32]


def find_shortcut(settings: RunSettings, examples: Examples, selection: Selection, folder: Path) -> Shortcut:
    """What the objective of these settings needs, for the training split and the rows that are trained on.

    Raises InputError where the data cannot give it, or a file is of other data.
    """
    name, started = settings.objective_name, time.perf_counter()
    if name == "erm":
        return Shortcut()
    if not examples.label_names:
        raise InputError(f"--objective {name}: {examples.task.name} has no classes; give a task with classes")
    known: dict = {}
    facts = {"name": name, "version": 1}
    if name in NEED_BIAS:
        known["p_bias"] = (
            read_bias(settings.bias_path, examples) if settings.bias_path else make_bias(settings, examples)
        )
        facts["bias"] = settings.bias_path or f"{settings.bias}, cross-fitted"
    if name == "conf_reg":
        known["teacher"], facts["teacher_epochs"] = _teacher(settings, examples, selection, folder)
        facts["teacher"] = settings.teacher_path or "made here"
    if name in ("group_dro", "dfr"):
        known["groups"] = find_groups(settings, examples, selection)
        if name == "dfr":
            _check_balanced(known["groups"], examples, selection)
        facts["groups"] = dict(zip(known["groups"].names, _sizes(known["groups"], selection), strict=True))
    return Shortcut(**known, facts=facts | {"seconds": round(time.perf_counter() - started, 2)})


# ----------------------------------------------------------------------------------------------------------------- bias
def make_bias(settings: RunSettings, examples: Examples) -> np.ndarray:
    """p_bias float32 (n, C) of the bias model that --bias names; its folds are drawn with the selection seed."""
    what = f"--objective {settings.objective}"
    if settings.bias == "hypothesis":
        if len(examples) < 2:
            raise InputError(f"{what} needs two examples: the model that scores one must not have seen it")
        found = hypothesis_bias(examples.premise_first, examples.labels, settings.drawing_seed)
    else:
        _check_pairs(examples, f"{what} with --bias overlap", "take --bias hypothesis")
        if "entailment" not in examples.label_names:
            raise InputError(
                f"{what}: {examples.task.name} has no class called entailment; take --bias hypothesis or give --bias_path"
            )
        found = overlap_bias(
            examples.premise_first,
            examples.labels,
            examples.label_names,
            settings.drawing_seed,
            what=f"{what} with --bias overlap",
        )
    p_bias = np.zeros((len(examples), len(examples.label_names)), dtype=np.float32)
    p_bias[:, : found.shape[1]] = found
    return p_bias


def save_bias(path, p_bias: np.ndarray, examples: Examples) -> None:
    about = {"class_names": examples.label_names, "fingerprint": examples.fingerprint}
    write_npz(path, p_bias=p_bias, about=json_array(about))


def read_bias(path, examples: Examples) -> np.ndarray:
    """p_bias float32 (n, C) of a file, its columns by class name in the order of the task.

    Raises InputError where it is of other examples or other classes, or its rows are no probabilities.
    """
    arrays = read_npz(path, required=("p_bias", "about"))
    p_bias = arrays["p_bias"]
    try:
        about = array_json(arrays["about"])
        names, fingerprint = list(about["class_names"]), about["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: `about` is not the JSON of class_names and fingerprint ({error!r:.200})") from None
    if sorted(names) != sorted(examples.label_names):
        raise InputError(
            f"{path}: of the classes {', '.join(map(str, names))}; the task has {', '.join(examples.label_names)}"
        )
    shape = (len(examples), len(names))
    if p_bias.shape != shape or fingerprint != examples.fingerprint:
        raise InputError(
            f"{path}: made for other data: p_bias has shape {p_bias.shape} and fingerprint {str(fingerprint)[:12]}, but "
            f"{examples.source} needs {shape} and {examples.fingerprint[:12]}"
        )
    sums = p_bias.sum(1) if p_bias.dtype.kind == "f" else np.zeros(len(p_bias))
    wrong = np.flatnonzero(~((np.abs(sums - 1) < 1e-3) & (p_bias >= 0).all(1)))
    if len(wrong):
        raise InputError(f"{path}: row {wrong[0]} of p_bias holds no probabilities that add up to 1")
    return np.ascontiguousarray(p_bias[:, [names.index(name) for name in examples.label_names]], dtype=np.float32)


# -------------------------------------------------------------------------------------------------------------- teacher
def _teacher(settings: RunSettings, examples: Examples, selection: Selection, folder: Path) -> tuple[np.ndarray, float]:
    """Probabilities float32 (n, C) of the teacher, and its cost in epochs: --teacher_path, which costs nothing here, or a
    model that is trained here on the same rows by the same recipe, with the plain objective."""
    path, epochs = settings.teacher_path, 0.0
    if not path:
        settings = dataclasses.replace(settings, output_dir=str(folder))
        facts = {"n": len(examples), "fingerprint": examples.fingerprint}
        maker = InputMaker(settings, MakerSettings(), seed=settings.drawing_seed, **facts)
        logger.info("training the teacher first; its files stay in %s", maker.folder)
        path = maker.teacher_logits(selection)
        epochs = sum(maker.epochs.values())
    return softmax(np.asarray(load_inputs(examples, logits_path=path).logits, dtype=np.float32)), epochs


# --------------------------------------------------------------------------------------------------------------- groups
def find_groups(settings: RunSettings, examples: Examples, selection: Selection) -> Groups:
    """The groups of the examples that are trained on: the values of --group_column, else label x whether all words of
    the hypothesis are in the premise (McCoy et al. 2019, lexical overlap; it holds where their subsequence heuristic does).
    """
    if settings.group_column:
        values = _column(examples, settings)
    else:
        _check_pairs(examples, "the default groups", "give --group_column")
        held = supports_heuristics(*examples.premise_first)["lexical_overlap"]
        sides = ("no overlap", "overlap")
        values = [
            f"{examples.label_names[label]}, {sides[h]}"
            for label, h in zip(examples.labels, held.astype(int), strict=True)
        ]
    names = sorted({values[row] for row in np.unique(selection.indices)})
    number = {name: i for i, name in enumerate(names)}
    return Groups(np.array([number.get(value, -1) for value in values], dtype=np.int64), tuple(names))


def _column(examples: Examples, settings: RunSettings) -> list[str]:
    """A column of the training file, by its name in the header."""
    name, path = settings.group_column, Path(examples.source)
    if not path.is_file():
        raise InputError(
            f"--group_column {name}: it is a column of the training file, so give --data_dir or --train_file"
        )
    task = examples.task
    columns = (*task.text_columns, task.label_column)
    table = read_tsv(path, short_rows=columns) if task.skip_short_rows else read_table(path)
    if name not in table.names:
        raise InputError(f"--group_column {name}: {path} has no such column; it has {', '.join(table.names[:20])}")
    values = dict(zip(table.numbers, table.column(name), strict=True))
    return [str(values[number]) for number in examples.numbers.tolist()]


def _check_pairs(examples: Examples, what: str, way_out: str) -> None:
    if len(examples.texts) != 2:
        raise InputError(f"{what}: {examples.task.name} has no premise and hypothesis; {way_out}")


def _check_balanced(groups: Groups, examples: Examples, selection: Selection) -> None:
    """Raise InputError unless every group has two examples, one to fit to and one to test on, and every class has some."""
    rows = np.unique(selection.indices)
    sizes = np.bincount(groups.of[rows])
    if sizes.min() < 2:
        raise InputError(f"--dfr: the group {groups.names[sizes.argmin()]!r} has one example, and needs two")
    missing = set(range(len(examples.label_names))) - set(examples.labels[rows].tolist())
    if missing:
        raise InputError(f"--dfr: no training example is called {examples.label_names[min(missing)]}")


def _sizes(groups: Groups, selection: Selection) -> list[int]:
    return np.bincount(groups.of[selection.indices], minlength=len(groups.names)).tolist()
