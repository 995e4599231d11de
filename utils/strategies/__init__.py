"""Selection strategies: one function and one `@strategy` line each, all behind `select`. No torch.

`registry` holds the inputs, the checks and the budget; the other modules hold the strategies, by what they look at.
"""

# The order of --list.
from utils.strategies import from_nothing, from_clusters, from_dynamics, coverage, from_text, sampling  # noqa: F401  # isort: skip
from utils.strategies.inputs import Inputs, load_inputs
from utils.strategies.registry import (
    NEEDS,
    STRATEGIES,
    Picks,
    Pool,
    Strategy,
    get_strategy,
    quotas,
    random_ranking,
    select,
)

__all__ = [
    "NEEDS",
    "STRATEGIES",
    "Inputs",
    "Picks",
    "Pool",
    "Strategy",
    "get_strategy",
    "load_inputs",
    "quotas",
    "random_ranking",
    "select",
]
