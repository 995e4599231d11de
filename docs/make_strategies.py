"""Makes docs/strategies.md from the registry of strategies: run it after a strategy was added or changed.

  python -m docs.make_strategies

Description, needs, flags, source, fidelity and version come from the registry, times from
benchmarks/results/selection.json. The formula and the advice are written by hand in docs/strategies_notes.json, by name;
a strategy without an entry there has no such lines.
"""

import inspect
import sys
from pathlib import Path

from utils.errors import run_script
from utils.files import read_json, write_text
from utils.selection.strategies import NEEDS, STRATEGIES, Strategy
from utils.training.schemes import SCHEMES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "strategies.md"
NOTES = ROOT / "docs" / "strategies_notes.json"
TIMES = ROOT / "benchmarks" / "results" / "selection.json"

HEAD = """# Strategies

This page is made by `python -m docs.make_strategies`; do not edit it. `python select_examples.py --list` prints the short
form. Symbols: n examples in the split, m chosen (the budget), d numbers in an embedding, k clusters, z logits,
p = softmax(z), y the gold label as a one-hot vector, e an embedding.

Every strategy is run by `select_examples.py --strategy NAME`, by `importance_sampling_mnli.py --strategy NAME` (choose and
train in one command) and by `sweep.py --strategies NAME ...`. The first two take the flags below, `--class_balanced` (the
budget is divided over the gold labels in proportion) and `--start_from FILE` (these rows come first). A sweep runs every
strategy with its default parameters; for other values write a strategy of your own, as `study/arms.py` does. Ties are broken at
random by `--selection_seed`, never by the order of the rows.

**Needs.** A strategy that needs files of a model is told where they are by the flag named below.
`importance_sampling_mnli.py` and `sweep.py` make missing dynamics, logits, embeddings and clusters themselves, with a short
proxy run. That run costs training passes over the whole data set: a report counts them. Target examples, gradients and a
ranking are for you to give.

**Weights.** A strategy marked *weighted* returns a weight for each chosen example. Training on a selection minimises the
mean of weight times loss. All other strategies return weights of 1.

**Time.** Measured at the size of MNLI, n = {n:,}, d = {d}, k = {k}, m = {m:,}, on given inputs, with {cores} cores of the
CPU that is named ([performance.md](performance.md)). A strategy whose present version was not measured has no time here.

**Many examples.** Embeddings and clusters can be made in shards, on several machines; the files are the same, byte for byte,
so every strategy chooses the same rows with the same weights. Choosing itself is one process. *Grows with n* says what it
reads and holds ([growth.md](growth.md)).
"""


def main(argv=None) -> None:
    write_text(PAGE, page())
    print(f"written: {PAGE.relative_to(ROOT)}")


def page() -> str:
    """The text of docs/strategies.md."""
    notes, measured = read_json(NOTES), read_json(TIMES)
    sizes = {key: measured[key] for key in ("n", "d", "k", "m")}
    parts = [HEAD.format(**sizes, cores=measured["machine"]["cores"])]
    module = None
    own = [s for s in STRATEGIES.values() if s.function.__module__.startswith("utils.")]  # no plugins
    for strategy in own:
        if strategy.function.__module__ != module:
            module = strategy.function.__module__
            parts.append(f"## {_title(module)}\n")
        parts.append(_entry(strategy, notes.get(strategy.name, {}), measured["strategies"].get(strategy.name)))
    parts.append(_online())
    return "\n".join(parts)


def _title(module: str) -> str:
    """The first sentence of the module's docstring."""
    return inspect.getdoc(sys.modules[module]).partition("\n")[0].rstrip(".")


def _entry(strategy: Strategy, notes: dict, measured: dict | None) -> str:
    if measured and measured.get("version", 1) != strategy.version:
        measured = None  # the time of an earlier version
    marks = ", ".join(["weighted"] * strategy.weighted + ["for a second fine-tuning"] * strategy.second_pass)
    lines = [f"### {strategy.name}{f' ({marks})' if marks else ''}\n", f"{_sentence(strategy.description)}\n"]
    facts = {
        "Formula": notes.get("formula"),
        "When to use it": notes.get("when"),
        "Needs": "; ".join(NEEDS[need].way_out for need in strategy.needs) or "nothing",
        "Flags": "; ".join(f"`--{p.name}` ({p.default}): {p.help}" for p in strategy.parameters.values()),
        "Grows with n": strategy.reads,
        "Time": f"{_duration(measured['seconds'])} ({measured['cpu']})" if measured else "",
        "Source": strategy.source,
        "Held against the source": strategy.fidelity,
        "Version": strategy.version if strategy.version > 1 else "",
    }
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 99 else f"{seconds / 60:.1f} min"


def _online() -> str:
    lines = [
        "## Schemes that choose while training\n",
        "`importance_sampling_mnli.py --online NAME`; in a sweep they stand among the strategies.\n",
        "| name | rule | source |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| `{s.name}` | {s.description} | {s.source} |" for s in SCHEMES.values())]) + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    run_script(main)
