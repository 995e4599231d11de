"""The online schemes as records. Their batches are in `online.py`; this module needs no torch, so that flags can be read
and sweeps planned without loading one.
"""

from dataclasses import dataclass

from utils.errors import InputError


@dataclass(frozen=True)
class Scheme:
    """One way of choosing examples while training.

    subset: each epoch trains on a share of the data (--data_pct). weighted: it draws from all of the data and weights what
    it draws, so it is a run of its own at 100 %. plans_steps: it decides itself how many examples it leaves out, so it
    takes whole epochs and no share. needs_irreducible_loss: it compares with the losses of another model. version:
    raised when the same flags give other batches than before.
    """

    name: str
    description: str
    source: str
    subset: bool = False
    weighted: bool = False
    plans_steps: bool = False
    needs_irreducible_loss: bool = False
    version: int = 1


_SCHEMES = (
    Scheme(
        "grad_norm",
        "candidates are scored by a forward pass and drawn in proportion to a bound of their gradient norm; unbiased",
        "Katharopoulos & Fleuret 2018, arXiv 1803.00942",
        weighted=True,
        version=2,
    ),
    Scheme(
        "infobatch",
        "examples with a loss below the mean are left out half of the time, the others are reweighted; unbiased",
        "Qin et al. 2024, arXiv 2303.04947",
        weighted=True,
        plans_steps=True,
    ),
    Scheme(
        "rho",
        "of a large batch, the examples with the most reducible loss; biased by design",
        "Mindermann et al. 2022, arXiv 2206.07137",
        weighted=True,
        needs_irreducible_loss=True,
    ),
    Scheme(
        "rs2",
        "a fresh random subset every epoch; n/m epochs see every example once (--replacement: independent subsets)",
        "Okanovic et al. 2023, arXiv 2305.18424",
        subset=True,
        version=2,
    ),
)

SCHEMES = {scheme.name: scheme for scheme in _SCHEMES}


def check_scheme(
    name: str, *, data_pct, num_examples, max_steps, num_train_epochs: float, record_dynamics: bool
) -> None:
    """Raise InputError where a scheme cannot be combined with these settings."""
    scheme = SCHEMES[name]
    if scheme.subset and data_pct is None:
        raise InputError(f"--online {name} needs --data_pct: the share of the data in each epoch's subset")
    if not scheme.subset and (data_pct or num_examples):
        raise InputError(
            f"--online {name} draws from all of the data; --data_pct and --num_examples belong to --strategy and rs2"
        )
    if scheme.plans_steps and (max_steps or num_train_epochs % 1):
        raise InputError(
            f"--online {name} plans its own steps: it takes a whole --num_train_epochs, and not --max_steps"
        )
    if scheme.plans_steps and record_dynamics:
        raise InputError(
            f"--online {name} leaves examples out of an epoch, so no epoch shows the logits of all: leave out "
            "--record_dynamics, and record them in a run of run_glue.py"
        )
