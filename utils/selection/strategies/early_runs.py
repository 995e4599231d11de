"""Strategies that read how early runs learnt and forgot, and rankings that a user brings along."""

import numpy as np

from utils.errors import InputError
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import measure
from utils.selection.strategies.registry import Picks, Pool, strategy


@strategy(
    "jtt",
    needs=("dynamics",),
    weighted=True,
    version=2,
    source="Liu et al. 2021, arXiv 2107.09044",
    fidelity=(
        "equal in expectation to the published copies of the wrong examples, because a weight of lambda stands for them (the "
        "paper's algorithm counts lambda copies in all, the authors' code adds lambda to the first: there take lambda + 1); "
        "the budget is ours"
    ),
)
def jtt(inputs: Inputs, pool: Pool, *, jtt_lambda: float = 5.0, score_epoch: float | None = None) -> Picks:
    """everything, with a larger weight on what an early run got wrong; a budget takes those first.

    jtt_lambda: weight of an example that the early run got wrong, where the others weigh 1; 5 is the
        authors' value for MultiNLI (the example and four copies)
    """
    if not 0 < jtt_lambda < np.inf:
        raise InputError(f"--jtt_lambda {jtt_lambda:g}: must be a finite number above 0")
    wrong = 1 - measure(inputs, lambda run: run.correct()[-1], score_epoch)  # of several runs: the share that erred
    wrong = np.where(np.isnan(wrong), np.nan, np.float32(1) * (wrong >= 0.5))
    rows = pool.by_score(wrong)
    weights = np.where(wrong[rows] == 1, jtt_lambda, 1.0)
    notes, counts = {"target": "another distribution, on purpose"}, {"wrong": int(np.nansum(wrong[pool.rows]))}
    return Picks(rows, weights, relative=True, scores=wrong, natural=len(rows), notes=notes, counts=counts)


@strategy(
    "ssft",
    needs=("two splits",),
    source="Maini et al. 2022, arXiv 2210.15031",
    fidelity=(
        "equal to the published learning and forgetting times; differs in the order, which is one ranking "
        "of both times, because the paper only plots the two"
    ),
)
def ssft(inputs: Inputs, pool: Pool, *, early_forgotten: float = 0.5) -> Picks:
    """latest learnt in the first run first (rare); what the second run forgets early goes last (mislabelled).

    early_forgotten: part of the second run's snapshots; what is wrong for good by then was forgotten early
    """
    if not 0 <= early_forgotten <= 1:
        raise InputError(
            f"--early_forgotten {early_forgotten:g} is outside [0, 1]; 0.5 means the first half of the run"
        )
    first, second = inputs.runs
    learnt, forgotten = first.right_for_good(), second.wrong_for_good()
    known = ~np.isnan(learnt + forgotten)
    if not known.any():
        raise InputError(
            "--dynamics_path: no example has logits in both files; the second must record the examples of the first"
        )
    early = forgotten <= early_forgotten * second.num_snapshots
    end = second.num_snapshots + 2
    # Two keys in one number: the second one counts for less than 1.
    late_learnt = learnt + forgotten / end
    late_forgotten = forgotten - end + learnt / (first.num_snapshots + 2)
    scores = np.where(early, late_forgotten, late_learnt).astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores, counts={"early_forgotten": int(early[pool.rows].sum())})


@strategy("ranking", needs=("ranking",), source="a list of your own", fidelity="equal to the list")
def ranking(inputs: Inputs, pool: Pool) -> Picks:
    """the order of a list of your own (all of it without a budget); what it does not name comes last, at random."""
    listed = inputs.ranking[np.isin(inputs.ranking, pool.rows)]
    others = pool.shuffled()
    others = others[~np.isin(others, listed)]
    scores = np.full(inputs.n, np.nan, dtype=np.float32)
    scores[inputs.ranking] = np.arange(len(inputs.ranking), 0, -1)
    return Picks(np.concatenate([listed, others]), scores=scores, natural=len(listed), counts={"listed": len(listed)})
