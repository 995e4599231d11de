"""What strategies need: one record for each input, read by the registry, by the maker of missing inputs, and by sweeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.selection.ingredients import InputMaker
    from utils.selection.strategies.inputs import Inputs


@dataclass(frozen=True)
class Need:
    """One input of strategies.

    present(inputs): whether it is there. way_out: what it is, and how a user gets it, for messages. flags: names of the
    flags that can give it, any of them will do; () where the data itself must have it. make(maker, parameters) -> {flag:
    path}: computes it with the scripts of this project, whose cost the maker counts; None where the user must give it.
    given(files, parameters): whether the files that the user named hold it; by default whether any of the flags was given.
    """

    name: str
    present: Callable[["Inputs"], bool]
    way_out: str
    flags: tuple[str, ...] = ()
    make: Callable[["InputMaker", Mapping], dict] | None = None
    given: Callable[[Mapping, Mapping], bool] | None = None

    def is_given(self, files: Mapping, parameters: Mapping) -> bool:
        """Whether the user's files hold it. files: flag -> path or None; parameters: of the strategy."""
        if self.given:
            return self.given(files, parameters)
        return not self.flags or any(files.get(flag) for flag in self.flags)

    @property
    def short(self) -> str:
        """A few words that name it."""
        return self.way_out.partition(":")[0]


def _score_is_given(files: Mapping, parameters: Mapping) -> bool:
    if parameters.get("score") == "embedding":
        return bool(files.get("embedding_path"))
    return any(files.get(flag) for flag in ("score_path", "dynamics_path", "logits_path", "embedding_path"))


def _make_score(maker: "InputMaker", parameters: Mapping) -> dict:
    if parameters.get("score") == "embedding":
        return {"embedding_path": maker.embeddings("auto")}
    return _make_dynamics(maker, parameters)


def _make_dynamics(maker: "InputMaker", parameters: Mapping) -> dict:
    return {"dynamics_path": maker.dynamics()}


def _make_learnt(maker: "InputMaker", parameters: Mapping) -> dict:
    return {"held_out_path": maker.held_out()} if parameters.get("cross_fitted") else _make_dynamics(maker, parameters)


def _two_runs_are_given(files: Mapping, parameters: Mapping) -> bool:
    return len(files.get("dynamics_path") or ()) == 2


_DYNAMICS_FILE = "--dynamics_path FILE, made by run_glue.py --record_dynamics"
_LOGITS_FILE = "--logits_path FILE, made by get_embeddings.py --logits"
_SCORE_FILE = "--score_path FILE, scores of your own"

_NEEDS = (
    Need(
        "labels",
        lambda inputs: inputs.classes is not None,
        "gold labels: a --data_dir and --split with labels of classes",
    ),
    Need("pairs", lambda inputs: len(inputs.texts) == 2, "a premise and a hypothesis: a --task_name of sentence pairs"),
    Need(
        "entailment",
        lambda inputs: "entailment" in inputs.class_names,
        "a class called entailment: --task_name mnli, rte or another NLI task",
    ),
    Need(
        "embeddings",
        lambda inputs: inputs.embeddings is not None,
        "embeddings: --embedding_path FILE, made by get_embeddings.py",
        ("embedding_path",),
        lambda maker, parameters: {"embedding_path": maker.embeddings("auto")},
    ),
    Need(
        "pooler",
        lambda inputs: inputs.embeddings is not None and inputs.pooling == "pooler",
        "the classifier's input: --embedding_path FILE, made by get_embeddings.py --pooling pooler",
        ("embedding_path",),
        lambda maker, parameters: {"embedding_path": maker.embeddings("pooler")},
    ),
    Need(
        "clusters",
        lambda inputs: inputs.clusters is not None,
        "clusters: --cluster_path FILE, made by cluster_embeddings.py",
        ("cluster_path",),
        lambda maker, parameters: {"cluster_path": maker.clusters()},
    ),
    Need(
        "dynamics",
        lambda inputs: inputs.dynamics is not None,
        f"training dynamics: {_DYNAMICS_FILE}",
        ("dynamics_path",),
        _make_dynamics,
    ),
    Need(
        "two snapshots",
        lambda inputs: bool(inputs.runs) and min(run.num_snapshots for run in inputs.runs) >= 2,
        f"training dynamics of at least two snapshots: {_DYNAMICS_FILE} with more epochs or --dynamics_per_epoch above 1",
        ("dynamics_path",),
        _make_dynamics,
    ),
    Need(
        "logits",
        lambda inputs: inputs.logits is not None,
        f"logits: {_LOGITS_FILE}",
        ("logits_path",),
        lambda maker, parameters: {"logits_path": maker.logits()},
    ),
    Need(
        "difficulty",
        lambda inputs: inputs.has_model_scores,
        f"a measure of difficulty: {_DYNAMICS_FILE}, or {_LOGITS_FILE}, or {_SCORE_FILE}",
        ("score_path", "dynamics_path", "logits_path"),
        _make_dynamics,
    ),
    Need(
        "score",
        lambda inputs: inputs.has_model_scores or inputs.embeddings is not None,
        f"something to score by: {_DYNAMICS_FILE}, {_LOGITS_FILE}, {_SCORE_FILE}, or --embedding_path FILE (get_embeddings.py)",
        ("score_path", "dynamics_path", "logits_path", "embedding_path"),
        _make_score,
        _score_is_given,
    ),
    Need(
        "two splits",
        lambda inputs: len(inputs.runs) == 2,
        "training dynamics of two runs, on the first half of the data and then on the second: --dynamics_path FIRST SECOND, "
        "the second recorded with --dynamics_all_rows",
        ("dynamics_path",),
        lambda maker, parameters: {"dynamics_path": maker.two_splits()},
        _two_runs_are_given,
    ),
    Need(
        "learnt",
        lambda inputs: inputs.dynamics is not None or inputs.held_out is not None,
        f"what a model learnt: {_DYNAMICS_FILE}, or, with --cross_fitted, --held_out_path FILE, logits (n, C) in a .npy",
        ("dynamics_path", "held_out_path"),
        _make_learnt,
        lambda files, parameters: bool(
            files.get("held_out_path" if parameters.get("cross_fitted") else "dynamics_path")
        ),
    ),
    Need(
        "target",
        lambda inputs: bool(inputs.target),
        "target examples: --target_path DIR, made by get_embeddings.py of the examples that matter",
        ("target_path",),
    ),
    Need(
        "gradients",
        lambda inputs: bool(inputs.checkpoints) and all(found.has_gradients for found in inputs.checkpoints),
        "gradients: --gradient_path DIR ..., made by get_embeddings.py --pooling pooler --logits with each checkpoint",
        ("gradient_path",),
    ),
    Need(
        "target gradients",
        lambda inputs: bool(inputs.target) and all(found.has_gradients for found in inputs.target),
        "gradients of the target: --target_path DIR ..., made by get_embeddings.py --pooling pooler --logits of labelled "
        "examples with each checkpoint",
        ("target_path",),
    ),
    Need(
        "ranking",
        lambda inputs: inputs.ranking is not None,
        "a ranking of your own: --ranking FILE, one row number or pair id a line, best first",
        ("ranking",),
    ),
)

NEEDS = {need.name: need for need in _NEEDS}
