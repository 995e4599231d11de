"""Reads HANS evaluation sets and prediction files: official text or JSON lines, plain or compressed, a folder, a file or
the hub. Standard library only, so that the evaluator starts at once.
"""

import contextlib
import gzip
import hashlib
import json
import lzma
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError, quoted

ENTAILMENT, NON_ENTAILMENT = "entailment", "non-entailment"
LABELS = (ENTAILMENT, NON_ENTAILMENT)
EVALUATION_SET = "heuristics_evaluation_set"
PREDICTIONS = "hans_predictions.txt"
HUB_DATASET = "jhu-cogsci/hans"

_COLUMNS = ("gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase", "template")
_ENDINGS = (".txt", ".txt.xz", ".txt.gz", ".jsonl", ".jsonl.xz", ".jsonl.gz")
# Three-class labels that a predictions file may hold; the authors' script counts every other word as non-entailment.
_PREDICTED = {
    ENTAILMENT: ENTAILMENT,
    NON_ENTAILMENT: NON_ENTAILMENT,
    "not_entailment": NON_ENTAILMENT,
    "neutral": NON_ENTAILMENT,
    "contradiction": NON_ENTAILMENT,
}


@dataclass(frozen=True)
class HansSet:
    """n premise-hypothesis pairs in file order; every field a list of n strings, labels from LABELS, ids unique.

    source: the absolute path of the file, or the name of the data set on the hub.
    """

    premises: list[str]
    hypotheses: list[str]
    labels: list[str]
    pair_ids: list[str]
    heuristics: list[str]
    subcases: list[str]
    templates: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.pair_ids)

    @property
    def fingerprint(self) -> str:
        """A hash of texts, labels and ids."""
        digest = hashlib.sha256()
        for column in (self.premises, self.hypotheses, self.labels, self.pair_ids):
            digest.update(("\n".join(column) + "\n\n").encode())
        return digest.hexdigest()[:32]

    def sample(self, per_subcase: int, seed: int = 0) -> "HansSet":
        """At most `per_subcase` pairs of each subcase, drawn at random, in file order."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        taken: dict[str, list[int]] = {}
        for row in order:
            taken.setdefault(self.subcases[row], []).append(row)
        kept = sorted(row for rows in taken.values() for row in rows[:per_subcase])
        columns = (self.premises, self.hypotheses, self.labels, self.pair_ids, self.heuristics, self.subcases)
        return HansSet(*([column[i] for i in kept] for column in (*columns, self.templates)), self.source)


def load_hans(data_dir=None, *, cache_dir=None) -> HansSet:
    """The evaluation set of a folder or file, or of the hub without `data_dir`. Raises InputError for anything that is
    not one."""
    if data_dir is None:
        return _load_hub(cache_dir)
    path = find_evaluation_set([data_dir])
    rows = _json_rows(path) if ".jsonl" in path.name else _text_rows(path)
    fields: dict[str, list[str]] = {name: [] for name in _COLUMNS}
    seen: dict[str, int] = {}
    for number, row in rows:
        if row["gold_label"] not in LABELS:
            raise InputError(
                f"{path}: line {number}: unknown gold_label {quoted(row['gold_label'])}; HANS has {' and '.join(LABELS)}"
            )
        if row["pairID"] in seen:
            raise InputError(
                f"{path}: line {number}: pairID {quoted(row['pairID'])} is also on line {seen[row['pairID']]}"
            )
        seen[row["pairID"]] = number
        for name in _COLUMNS:
            fields[name].append(row[name])
    if not seen:
        raise InputError(f"{path}: holds no pairs")
    return HansSet(
        fields["sentence1"], fields["sentence2"], fields["gold_label"], fields["pairID"], fields["heuristic"],
        fields["subcase"], fields["template"], str(path.absolute()),
    )  # fmt: skip


def find_evaluation_set(places) -> Path:
    """The first evaluation set among `places` (files or folders). Raises InputError that lists where it looked."""
    for place in places:
        path = Path(place)
        if path.is_file():
            return path
        for ending in _ENDINGS:
            if (path / f"{EVALUATION_SET}{ending}").is_file():
                return path / f"{EVALUATION_SET}{ending}"
    looked = ", ".join(str(place) for place in places)
    raise InputError(
        f"no {EVALUATION_SET}.txt (or .jsonl, .xz, .gz) in {looked}; give --data_dir <folder or file>. The official set "
        "is in the authors' repository tommccoy1/hans; python -m hans.generate makes one offline"
    )


def load_predictions(path, evaluation_set: HansSet) -> list[str]:
    """Predicted labels in the order of the evaluation set, neutral and contradiction counted as non-entailment.

    A file in the authors' form: a header, then `pairID,label` lines; Windows line ends are read as line ends. Raises
    InputError where the authors' script would crash or count wrong: no header, ids missing, twice, or of another set,
    unknown labels.
    """
    path = Path(path)
    if path.is_dir():
        path = path / PREDICTIONS
    lines = _lines(path)
    number, header = next(lines, (1, ""))
    if [part.strip().lower() for part in header.split(",")] != ["pairid", "gold_label"]:
        raise InputError(f"{path}: line {number} is {header[:60]!r}, but the header pairID,gold_label is due")
    guesses: dict[str, str] = {}
    for number, line in lines:
        pair_id, comma, label = line.partition(",")
        if not comma or label.strip() not in _PREDICTED:
            raise InputError(
                f"{path}: line {number}: {line[:60]!r} is not pairID,label with a label of {', '.join(_PREDICTED)}"
            )
        if pair_id in guesses:
            raise InputError(f"{path}: line {number}: pairID {quoted(pair_id)} was predicted before")
        guesses[pair_id] = _PREDICTED[label.strip()]
    missing = [pair_id for pair_id in evaluation_set.pair_ids if pair_id not in guesses]
    unknown = set(guesses) - set(evaluation_set.pair_ids)
    if missing or unknown:
        problems = []
        if missing:
            problems.append(
                f"no prediction for {len(missing)} of its {len(evaluation_set)} pairs ({quoted(missing[0])}, ...)"
            )
        if unknown:
            problems.append(f"{len(unknown)} predictions for pairs it does not have ({quoted(min(unknown))}, ...)")
        raise InputError(f"{path} and {evaluation_set.source} do not belong together: {'; '.join(problems)}")
    return [guesses[pair_id] for pair_id in evaluation_set.pair_ids]


# ------------------------------------------------------------------------------------------------------------- reading
def _lines(path: Path):
    """(line number, line without its end) of a text file, decompressed where its name says so; no empty lines."""
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                line = line.rstrip("\r\n")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} near byte {error.start})") from None
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path}: cannot be decompressed or read: {error}") from None


def _text_rows(path: Path):
    lines = _lines(path)
    _, first = next(lines, (1, ""))
    header = first.split("\t")
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {missing[0]!r} in its header ({', '.join(header[:12])[:200]}); is it a HANS evaluation set?"
        )
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: its header names {', '.join(twice)} more than once; keep one column of each name")
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise InputError(
                f"{path}: line {number} has {len(fields)} tab-separated columns where {len(header)} are due"
            )
        yield number, dict(zip(header, fields, strict=True))


def _json_rows(path: Path):
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            yield number, {name: str(row[name]) for name in _COLUMNS}
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"{path}: line {number} is not a JSON object") from None
        except KeyError as error:
            raise InputError(f"{path}: line {number} has no {error.args[0]!r}; is it a HANS evaluation set?") from None


def _load_hub(cache_dir) -> HansSet:
    data = None
    with contextlib.suppress(Exception):  # whatever the library raises, the answer is the same one line
        import datasets

        datasets.disable_progress_bars()
        data = datasets.load_dataset(HUB_DATASET, split="validation", cache_dir=cache_dir)
    if data is None:
        raise InputError(
            f"cannot load {HUB_DATASET} from the hub. Give --data_dir <folder with {EVALUATION_SET}.txt>, or make one "
            "offline with python -m hans.generate"
        )
    names = data.features["label"].names if hasattr(data.features["label"], "names") else list(LABELS)
    return HansSet(
        list(data["premise"]), list(data["hypothesis"]), [names[i] for i in data["label"]],
        [f"ex{i}" for i in range(len(data))], list(data["heuristic"]), list(data["subcase"]), list(data["template"]),
        HUB_DATASET,
    )  # fmt: skip
