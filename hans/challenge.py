"""HANS as a challenge set: how sweeps evaluate on it, and how reports show it."""

from pathlib import Path

from hans.data import ENTAILMENT, NON_ENTAILMENT, load_hans
from utils.data.challenge import Cell, ChallengeRun, ChallengeScores

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
RESULTS = "hans_results.json"  # in the output folder of test_hans.py
FOLDER = "hans"  # of a run, when a sweep evaluates it
HUB = "hub"  # --hans_dir: not a folder but the hub
SIDES = {ENTAILMENT: "entailed", NON_ENTAILMENT: "non-entailed"}


def read_scores(results: dict) -> dict[str, float]:
    """{column: accuracy} from the contents of hans_results.json: six cells, the mean of each side, the mean of both."""
    scores = {}
    for label, side in SIDES.items():
        cells = {f"{side} {h}": results["by_heuristic"][h][label] for h in HEURISTICS}
        scores |= cells
        scores[f"HANS {side}"] = sum(cells.values()) / len(cells)
    scores["HANS overall"] = (scores["HANS entailed"] + scores["HANS non-entailed"]) / 2
    return scores


def _cell(side: str) -> Cell:
    return Cell(f"HANS {side}", {h.replace("_", " "): f"{side} {h}" for h in HEURISTICS})


HANS = ChallengeScores(
    name="HANS",
    results_file=f"{FOLDER}/{RESULTS}",
    read=read_scores,
    cells=(_cell("entailed"), _cell("non-entailed")),
    headline="HANS non-entailed",
    # Overall, both sides weigh the same: a model that only answers one class more often gains nothing there.
    compared=("HANS non-entailed", "HANS entailed", "HANS overall"),
    grouped_by="heuristic and gold label",
    chance=0.5,
)


def hans_run(
    hans_dir: str,
    *,
    per_subcase: int | None,
    max_seq_length: int,
    cache_dir: str | None,
    trust_remote_code: bool,
    device_flags: list[str],
) -> ChallengeRun:
    """How a sweep evaluates each of its runs on HANS. Raises InputError where the set cannot be read.

    hans_dir: a folder, a file, or "hub"; per_subcase: pairs of each subcase, None for all; device_flags: the flags of
    precision and device that every run gets.
    """
    data = load_hans(None if hans_dir == HUB else hans_dir, cache_dir=cache_dir)
    fingerprint = data.fingerprint
    if per_subcase:
        data = data.sample(per_subcase)

    def flags(folder: Path) -> list[str]:
        words = ["--model_name_or_path", str(folder), "--output_dir", str(folder / FOLDER)]
        words += [] if hans_dir == HUB else ["--data_dir", str(hans_dir)]
        words += ["--max_seq_length", str(max_seq_length), "--overwrite_output_dir"]
        words += ["--max_per_subcase", str(per_subcase)] if per_subcase else []
        words += ["--cache_dir", cache_dir] if cache_dir else []
        words += ["--trust_remote_code"] if trust_remote_code else []
        return words + device_flags

    identity = {"name": "HANS", "fingerprint": fingerprint, "per_subcase": per_subcase}
    return ChallengeRun(HANS, "test_hans", flags, len(data), identity, preload=("hans.evaluation",))
