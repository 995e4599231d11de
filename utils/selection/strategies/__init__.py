"""Selection strategies: one decorated function each, all run by `select`.

`registry` holds the decorator, the checks and the budget. `inputs` holds what a strategy may look at. Every other module
holds strategies, by what they look at. Importing this package registers them all; it needs numpy and no torch.
"""

# The order of --list.
from utils.selection.strategies import (
    random_draws,
    cluster_based,
    model_scores,
    coverage,
    text_based,
    importance_sampling,
)
from utils.selection.strategies.inputs import Inputs, load_inputs
from utils.selection.strategies.registry import NEEDS, STRATEGIES, Picks, Pool, Strategy, get_strategy, quotas, select

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
    "select",
]
