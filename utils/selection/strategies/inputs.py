"""What a strategy may look at: one object of arrays whose row i is row i of the split, checked to belong together."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.data.class_names import columns_of
from utils.data.examples import Examples, check_same_data
from utils.errors import InputError
from utils.files import file_sha256, read_json, read_npy
from utils.selection import cartography
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.embeddings import load_embeddings
from utils.selection.features import Features, load_features
from utils.selection.own_files import read_ranking, read_scores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """n examples and whatever is known about them; None where it is not.

    labels: int64 (n,), or float32 for regression; genres: n strings; texts: one list of n strings per text, the premise
    before the hypothesis;
    class_names: C names; embeddings: float32 (n, d), possibly memory-mapped; pooling: how they were pooled; dynamics: of
    the first run, more_dynamics: of further runs on the same examples; logits: float (n, C) of one checkpoint; held_out:
    float (n, C) logits by models that were not trained on the example; scores:
    float32 (n,) of the user's own, higher = harder; ranking: int64 (r,) rows of the user's own, best first; checkpoints:
    what each of several checkpoints says of the n examples; target: what the same checkpoints say of the target
    examples, those that the choice should resemble; facts: whatever should stand in a Selection's provenance (task,
    paths, checkpoints).
    """

    n: int
    fingerprint: str = ""
    labels: np.ndarray | None = None
    genres: list[str] | None = None
    texts: tuple[list[str], ...] = ()
    class_names: tuple[str, ...] = ()
    embeddings: np.ndarray | None = None
    pooling: str | None = None
    clusters: Clusters | None = None
    dynamics: Dynamics | None = None
    logits: np.ndarray | None = None
    held_out: np.ndarray | None = None
    more_dynamics: tuple[Dynamics, ...] = ()
    scores: np.ndarray | None = None
    ranking: np.ndarray | None = None
    checkpoints: tuple[Features, ...] = ()
    target: tuple[Features, ...] = ()
    facts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Examples, **known) -> "Inputs":
        """The inputs of these examples; `known` are further fields, already checked against them."""
        facts = {"task": examples.task.name, "split": examples.split, **known.pop("facts", {})}
        return cls(
            len(examples), examples.fingerprint, examples.labels, examples.genres, examples.premise_first,
            examples.label_names, facts=facts, **known,
        )  # fmt: skip

    @property
    def classes(self) -> np.ndarray | None:
        """int64 (n,) class numbers; None where there are no labels or they are scores."""
        has_classes = self.labels is not None and np.issubdtype(self.labels.dtype, np.integer)
        return self.labels if has_classes else None

    @property
    def has_model_scores(self) -> bool:
        """Whether scores of difficulty are there, or dynamics or logits to take them from."""
        return any(known is not None for known in (self.scores, self.dynamics, self.logits))

    @property
    def runs(self) -> tuple[Dynamics, ...]:
        """The training dynamics of every run that was given."""
        return () if self.dynamics is None else (self.dynamics, *self.more_dynamics)


def load_inputs(
    examples: Examples,
    *,
    embedding_path=None,
    cluster_path=None,
    dynamics_path=None,
    logits_path=None,
    held_out_path=None,
    score_path=None,
    ranking=None,
    gradient_path=None,
    target_path=None,
    **facts,
) -> Inputs:
    """Read whichever files are given; they are named like the flags. `facts` go into the provenance.

    Raises InputError unless each was made from exactly these examples, and the clusters from exactly these embeddings. With
    embeddings of `--pooling pooler`, `select` checks the clusters instead, where a strategy reads both.
    """
    known: dict = {}
    embeddings = None
    if embedding_path:
        embeddings = load_embeddings(embedding_path, trusted_for=examples)
        embeddings.check(examples)
        known |= {"embeddings": embeddings.array, "pooling": embeddings.about["pooling"]}
        facts["embeddings"] = {"path": str(embeddings.path), "digest": embeddings.digest, **embeddings.about}
    if cluster_path:
        clusters = Clusters.load(cluster_path)
        clusters.check(examples, cluster_path)
        if embeddings is not None and embeddings.about["pooling"] != "pooler":
            clusters.check(embeddings, cluster_path)
        known["clusters"] = clusters
        facts["clusters"] = {**_about_file(cluster_path), "k": clusters.k}
    if dynamics_path:
        paths = [dynamics_path] if isinstance(dynamics_path, str | Path) else dynamics_path
        runs = [_load_dynamics(examples, path) for path in paths]
        _check_alike(runs, paths)
        known |= {"dynamics": runs[0], "more_dynamics": tuple(runs[1:])}
        about = [_about_dynamics(run, path) for run, path in zip(runs, paths, strict=True)]
        facts["dynamics"] = about[0] if len(about) == 1 else about
    if logits_path:
        known["logits"] = _load_logits(examples, logits_path)
        facts["logits"] = {**_about_file(logits_path), **_weights_of(logits_path)}
    if held_out_path:
        known["held_out"] = _load_logits(examples, held_out_path)
        facts["held_out"] = _about_file(held_out_path)
    if score_path:
        known["scores"] = read_scores(score_path, examples)
        facts["scores"] = _about_file(score_path)
    if ranking:
        known["ranking"] = read_ranking(ranking, examples)
        facts["ranking"] = _about_file(ranking)
    if gradient_path:
        known["checkpoints"] = tuple(_load_features(examples, path) for path in gradient_path)
        for path, found in zip(gradient_path, known["checkpoints"], strict=True):
            n, fingerprint = len(found.embeddings), found.about["fingerprint"]
            check_same_data(path, n, fingerprint, examples, way_out="run get_embeddings.py on this --data_dir")
        facts["checkpoints"] = _about_features(gradient_path, known["checkpoints"])
    if target_path:
        known["target"] = tuple(_load_features(examples, path) for path in target_path)
        facts["target"] = _about_features(target_path, known["target"])
        sources = known.get("checkpoints") or ([Features(embeddings.array, embeddings.about)] if embeddings else [])
        _check_target(sources, known["target"])
    return Inputs.of(examples, facts=facts, **known)


def _about_file(path) -> dict:
    return {"path": str(path), "sha256": file_sha256(path)}


def _weights_of(path) -> dict:
    """{"weights": those of the checkpoint}, where the json beside the file names them."""
    beside = Path(path).with_suffix(".json")
    about = read_json(beside) if beside.exists() else {}
    return {"weights": about["weights"]} if "weights" in about else {}


def _about_features(paths, features) -> list[dict]:
    return [{"path": str(path), **found.about} for path, found in zip(paths, features, strict=True)]


def _check_target(sources, target) -> None:
    """Raise InputError where the target's features are not of the same checkpoints as the examples'."""
    if sources and len(sources) != len(target):
        raise InputError(
            f"--target_path names {len(target)} folders, but there are {len(sources)} of the examples; give one for each, "
            "in the same order"
        )
    for own, theirs in zip(sources, target, strict=bool(sources)):
        for key in ("weights", "pooling", "layer", "d"):
            if key in own.about and own.about[key] != theirs.about.get(key):
                raise InputError(
                    f"--target_path: made with {key} {theirs.about.get(key)!r}, but the examples' features with "
                    f"{own.about[key]!r}; make both with the same checkpoint and flags of get_embeddings.py"
                )


def _load_dynamics(examples: Examples, path) -> Dynamics:
    dynamics = cartography.read(path, examples) if Path(path).is_dir() else Dynamics.load(path)
    way_out = "record them again with run_glue.py --record_dynamics"
    check_same_data(path, dynamics.n_total, dynamics.fingerprint, examples, way_out=way_out)
    if not np.array_equal(dynamics.labels, examples.labels):
        row = int(np.flatnonzero(dynamics.labels != examples.labels)[0])
        raise InputError(
            f"{path}: recorded with other gold labels than those of {examples.source}, first in row {row}; record them "
            "again with run_glue.py --record_dynamics"
        )
    unseen = int(np.isnan(dynamics.logits[..., 0]).all(0).sum())
    if unseen == dynamics.n_total:
        raise InputError(f"{path}: holds no example's logits; the run that recorded it trained on nothing")
    if unseen:
        logger.warning(
            "%s: %d of %d examples were not trained on and have no dynamics: they are ranked last, and count as average "
            "where a score is needed", path, unseen, dynamics.n_total,
        )  # fmt: skip
    return dynamics


def _check_alike(runs: list[Dynamics], paths) -> None:
    """Raise InputError unless measures of these runs may be averaged."""
    for run, path in zip(runs, paths, strict=True):
        if run.mode != runs[0].mode:
            raise InputError(
                f"--dynamics_path: {paths[0]} was recorded in {runs[0].mode} mode and {path} in {run.mode} mode (without "
                "dropout: eval); give runs of one mode"
            )


def _about_dynamics(run: Dynamics, path) -> dict:
    files = cartography.epoch_files(path) if Path(path).is_dir() else [path]
    digests = [file_sha256(file) for file in files]
    return {
        "path": str(path),
        "sha256": digests[0] if len(files) == 1 else digests,
        "snapshots": run.num_snapshots,
        "mode": run.mode,
    }


def _columns(examples: Examples, about: dict, width: int, path) -> np.ndarray:
    """For each class of the examples, its column among the `width` ones of the file that `about` describes. Raises
    InputError where these are of other classes."""
    names = tuple(about.get("class_names") or examples.label_names)  # files of earlier versions do not say
    if names == examples.label_names or len(names) != width:
        return np.arange(width)
    try:
        return columns_of(examples.label_names, names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _load_features(examples: Examples, path) -> Features:
    """The features of a folder, its logits and gold labels in the class order of the examples."""
    found = load_features(path)
    if found.logits is None:
        return found
    columns = _columns(examples, found.about, found.logits.shape[1], path)
    gold = found.gold
    if gold is not None and gold.dtype.kind == "i":
        gold = columns.argsort()[gold]
    return replace(found, logits=found.logits[:, columns], gold=gold)


def _load_logits(examples: Examples, path) -> np.ndarray:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; get_embeddings.py --logits makes logits_<task>_<split>.npy")
    if Path(path).with_suffix(".json").exists():
        found = load_embeddings(path)  # the same pair of files, with the same checks
        found.check(examples)
        logits = np.asarray(found.array)
        logits = logits[:, _columns(examples, found.about, logits.shape[1], path)]
    else:
        logits = read_npy(path, way_out="run get_embeddings.py --logits")
    shape = (len(examples), len(examples.label_names))
    if getattr(logits, "shape", None) != shape:
        raise InputError(
            f"{path}: has shape {getattr(logits, 'shape', None)}, but {examples.source} needs {shape}; run "
            "get_embeddings.py --logits on this data"
        )
    if not np.isfinite(logits).all():
        raise InputError(f"{path}: row {int(np.flatnonzero(~np.isfinite(logits).all(1))[0])} holds NaN or infinity")
    return logits
