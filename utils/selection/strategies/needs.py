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
    path}: computes it with the scripts of this project, whose cost the maker counts. given(files, parameters): whether the
    files that the user named hold it; by default whether any of the flags was given.
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
        return {"embedding_path": maker.embeddings("cls")}
    return {"dynamics_path": [maker.dynamics()]}


_DYNAMICS_FILE = "--dynamics_path FILE, made by run_glue.py --record_dynamics"
_LOGITS_FILE = "--logits_path FILE, made by get_embeddings.py --logits"
_SCORE_FILE = "--score_path FILE, scores of your own"

_NEEDS = (
    Need(
        "labels",
        lambda inputs: inputs.classes is not None,
        "gold labels: a --data_dir and --split with labels of classes",
    ),
    Need(
        "pairs",
        lambda inputs: len(inputs.texts) == 2,
        "a premise and a hypothesis: a --task_name of sentence pairs",
    ),
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
        lambda maker, parameters: {"embedding_path": maker.embeddings("cls")},
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
        lambda maker, parameters: {"dynamics_path": [maker.dynamics()]},
    ),
    Need(
        "two snapshots",
        lambda inputs: inputs.dynamics is not None and inputs.dynamics.num_snapshots >= 2,
        f"training dynamics of at least two snapshots: {_DYNAMICS_FILE} with more epochs or --dynamics_per_epoch above 1",
        ("dynamics_path",),
        lambda maker, parameters: {"dynamics_path": [maker.dynamics()]},
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
        lambda inputs: inputs.dynamics is not None or inputs.logits is not None,
        f"a measure of difficulty: {_DYNAMICS_FILE}, or {_LOGITS_FILE}",
        ("score_path", "dynamics_path", "logits_path"),
        lambda maker, parameters: {"dynamics_path": [maker.dynamics()]},
    ),
    Need(
        "score",
        lambda inputs: any(x is not None for x in (inputs.dynamics, inputs.logits, inputs.embeddings)),
        f"something to score by: {_DYNAMICS_FILE}, {_LOGITS_FILE} or --embedding_path FILE (get_embeddings.py)",
        ("score_path", "dynamics_path", "logits_path", "embedding_path"),
        _make_score,
        _score_is_given,
    ),
)

NEEDS = {need.name: need for need in _NEEDS}
