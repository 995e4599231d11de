"""Selection strategies: one decorated function each, all run by `select`.

`registry` holds the decorator, `needs` one record for each input that a strategy may need, `inputs` what a strategy may
look at, `selecting` the checks, the budget and the call, `ordering` what strategies share that divide a budget. Every
other module holds strategies, grouped by what they look at. Importing this package registers them all; it needs numpy and
no torch.
"""

# The order of --list.
from utils.selection.strategies import (
    random_draws,
    cluster_based,
    model_scores,
    score_ranges,
    early_runs,
    rare,
    coverage,
    semdedup,
    graph,
    gradients,
    text_based,
    adversarial,
    importance_sampling,
)
from utils.selection.strategies.inputs import Inputs, load_inputs
from utils.selection.strategies.needs import NEEDS, Need
from utils.selection.strategies.ordering import interleave, quotas, ranks_within
from utils.selection.strategies.registry import STRATEGIES, Picks, Pool, Strategy, get_strategy, load_plugin, strategy
from utils.selection.strategies.selecting import select
