"""Rare or mislabelled? How much of each kind of example every strategy brings into a subset, on corpora with known answers.

  python -m benchmarks.planted --output_dir benchmarks/results/planted [--jobs 2]     # about two hours on two cores
  python -m docs.make_planted                                                         # table, figure and page from it

Each cell is a corpus of demo.plant: a shortcut, a share of counter-examples, a share and a kind of wrong labels. One factor
at a time departs from 2 % counter-examples and 5 % uniform noise. In each cell, with three seeds (of the corpus and of the
proxy models alike), every strategy chooses from what the project's own maker of missing inputs gives it, with a tiny
encoder. kinds.tsv is read after the choice. A cell's result is a JSON of its own; a command that was killed is repeated and
goes on. --cells NAME ... runs some cells alone.
"""

import contextlib
import dataclasses
import importlib
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.selection import machine
from demo.plant import KINDS, SHORTCUTS, Corpus, plant, read_kinds
from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.files import read_json, write_json
from utils.flags import RunSettings
from utils.run_directory import versions
from utils.selection.ingredients import InputMaker, MakerSettings
from utils.selection.strategies import NEEDS, STRATEGIES, get_strategy

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "planted"
BUDGETS = (0.02, 0.1, 0.3)
SEEDS = (1, 2, 3)  # the rule of `rare` was chosen on corpora of seed 0
ORACLE, CHANCE = "oracle", "random"
MAKING = MakerSettings()


def cells() -> dict[str, Corpus]:
    """The design: name -> corpus. The cells of the goal (2 % counter-examples, 10 % noise) come first."""
    factors = {
        "noise10": {"noise": 0.1},
        "centre": {},
        "noise0": {"noise": 0.0},
        "pairs": {"noise_kind": "pairs"},
        "rare05": {"prevalence": 0.005},
        "rare8": {"prevalence": 0.08},
    }
    return {
        f"{shortcut}_{name}": Corpus(shortcut, **other) for name, other in factors.items() for shortcut in SHORTCUTS
    }


class InThisProcess(InputMaker):
    """The maker of missing inputs, without a new process for each script: starting one takes longer than a tiny model."""

    def _execute(self, words: list[str]) -> None:
        importlib.import_module(Path(words[0]).stem).main(words[1:])


def settings_for(corpus_dir: Path, out: Path, seed: int) -> RunSettings:
    """How the proxy models are trained."""
    return RunSettings(
        config_name=str(ROOT / "benchmarks" / "prenorm-tiny"), tokenizer_name=str(ROOT / "demo" / "albert-tiny"),
        task_name="MNLI", data_dir=str(corpus_dir), max_seq_length=64, per_device_train_batch_size=32, learning_rate=2e-3,
        warmup_ratio=0.1, seed=seed, output_dir=str(out), use_cpu=True, save_steps=10**6, logging_steps=10**6,
        cache_dir=str(out / "cache"),
    )  # fmt: skip


def run_cell(cell: tuple[str, Corpus, Path]) -> None:
    """Plant the corpus of (name, corpus, path), choose by every strategy, write the JSON."""
    name, corpus, path = cell
    began, work = time.perf_counter(), Path(tempfile.mkdtemp(prefix="planted_"))
    try:
        plant(work / "corpus", corpus, num_dev=100)
        chosen, costs, seconds = choose_by_all(work, corpus)
        kinds = read_kinds(work / "corpus")
        record = {
            "cell": name, "corpus": dataclasses.asdict(corpus), "versions": versions(), "costs": costs,
            "method_versions": {name: STRATEGIES[name].version for name in chosen if name in STRATEGIES},
            "cpu": machine()["cpu"], "threads": int(os.environ.get("OMP_NUM_THREADS", 0)), "seconds_of": seconds,
            "shares": {method: shares_of(by_budget, kinds) for method, by_budget in chosen.items()},
            "seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip
        write_json(path, record)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def choose_by_all(work: Path, corpus: Corpus) -> tuple[dict, dict, dict]:
    """By strategy: the rows chosen for each budget, what the inputs cost in epochs, the seconds. The oracle stands there too."""
    from utils.data.examples import load_split
    from utils.data.tasks import get_task
    from utils.selection.selection import budget
    from utils.selection.strategies import load_inputs, select

    examples = load_split(get_task("mnli"), "train", data_dir=str(work / "corpus"))
    settings, loaded, chosen, costs, seconds = settings_for(work / "corpus", work, corpus.seed), {}, {}, {}, {}
    for name in STRATEGIES:
        needs = [NEEDS[need] for need in get_strategy(name).needs]
        if any(need.flags and need.make is None for need in needs):
            continue  # a list of one's own, or target examples
        began = time.perf_counter()
        maker = InThisProcess(settings, MAKING, seed=corpus.seed, n=len(examples), fingerprint=examples.fingerprint)
        files = maker.fill_in(needs)
        key = repr(sorted(files.items()))
        if key not in loaded:
            loaded[key] = load_inputs(examples, **files)
        sizes = {share: budget(len(examples), data_pct=share) for share in BUDGETS}
        chosen[name] = {share: select(name, loaded[key], m, corpus.seed).indices for share, m in sizes.items()}
        costs[name], seconds[name] = round(sum(maker.epochs.values()), 2), round(time.perf_counter() - began, 2)
    for name, inputs, parameters in ablations(work, corpus, examples, settings):
        chosen[name] = {
            share: select("rare", inputs, m, corpus.seed, **parameters).indices for share, m in sizes.items()
        }
    scores = oracle_scores(work, corpus, examples, settings)
    chosen[ORACLE] = {share: (-scores).argsort(kind="stable")[:m] for share, m in sizes.items()}
    return chosen, costs, seconds


def ablations(work: Path, corpus: Corpus, examples, settings: RunSettings):
    """(name, inputs, parameters) of `rare` without one of its parts each."""
    import numpy as np

    from utils.selection.dynamics import Dynamics
    from utils.selection.strategies import Inputs

    facts = {"seed": corpus.seed, "n": len(examples), "fingerprint": examples.fingerprint}
    maker = InThisProcess(settings, MAKING, **facts)
    dynamics, held_out = Dynamics.load(maker.dynamics()[0]), np.load(maker.held_out(), allow_pickle=False)
    inputs = Inputs.of(examples, dynamics=dynamics)
    yield "rare: encoder alone", inputs, {"shallow_power": 0.0}
    yield "rare: power 3", inputs, {"shallow_power": 3.0}
    alone = Inputs.of(examples, held_out=np.zeros_like(held_out))
    yield "rare: shallow models alone", alone, {"cross_fitted": True}
    crossed = {"cross_fitted": True}
    yield "rare: cross-fitted", Inputs.of(examples, held_out=held_out), crossed
    elsewhere = dataclasses.replace(settings, output_dir=str(work / "equal"))
    equal = InThisProcess(elsewhere, dataclasses.replace(MAKING, crossfit_weight=1.0), **facts)
    held_out = np.load(equal.held_out(), allow_pickle=False)
    yield "rare: the same, equal weights", Inputs.of(examples, held_out=held_out), crossed


def oracle_scores(work: Path, corpus: Corpus, examples, settings: RunSettings):
    """float (n,): the gold label is right for a model of clean data with 30 % counter-examples, and wrong for one of clean
    data without any, which learnt the shortcut. No strategy can have either."""
    import numpy as np

    from utils.data.logits import softmax

    gold = {}
    for prevalence in (0.3, 0.0):
        folder = work / f"oracle_{prevalence:g}"
        clean = dataclasses.replace(corpus, prevalence=prevalence, noise=0.0, duplicates=0.0, seed=corpus.seed + 1000)
        plant(folder / "corpus", clean, num_dev=100)
        trained = dataclasses.replace(settings, data_dir=str(folder / "corpus"), output_dir=str(folder))
        making = dataclasses.replace(MAKING, proxy_epochs=6.0, proxy_snapshots=1)
        n = corpus.n
        maker = InThisProcess(trained, making, seed=corpus.seed, n=n, fingerprint=f"clean {prevalence}")
        model = maker.proxy_run()
        making = dataclasses.replace(making, selector_model=str(model))
        told = dataclasses.replace(settings, output_dir=str(folder))
        reader = InThisProcess(told, making, seed=corpus.seed, n=n, fingerprint=examples.fingerprint)
        logits = np.load(reader.logits(), allow_pickle=False)
        gold[prevalence] = softmax(logits)[np.arange(n), examples.labels]
    return gold[0.3] * (1 - gold[0.0])


def shares_of(by_budget: dict, kinds: list[str]) -> dict:
    """Budget -> kind -> the share of its examples that was chosen; None where there are none."""
    import numpy as np

    kinds, found = np.array(kinds), {}
    for share, rows in by_budget.items():
        taken = np.zeros(len(kinds), dtype=bool)
        taken[rows] = True
        found[f"{share:g}"] = {
            kind: round(float(taken[kinds == kind].mean()), 5) if (kinds == kind).any() else None for kind in KINDS
        }
    return found


def main(argv=None) -> None:
    design = cells()
    parser = ArgumentParser(description=__doc__, prog="benchmarks.planted")
    parser.add_argument(
        "--output_dir", type=Path, default=RESULTS, help="folder of the results, one JSON a cell and seed"
    )
    parser.add_argument("--cells", nargs="+", choices=design, default=list(design), metavar="CELL", help="these alone")
    parser.add_argument("--num_train", type=positive_int, default=Corpus.n, help="training pairs of a corpus")
    parser.add_argument("--num_seeds", type=positive_int, default=len(SEEDS), help="seeds of a cell")
    parser.add_argument("--jobs", type=positive_int, default=1, help="processes at a time, of one thread each")
    args = parse_args(parser, argv)
    work = []
    for seed in SEEDS[: args.num_seeds]:
        for name in args.cells:
            path = args.output_dir / f"{name}_{seed}.json"
            corpus = dataclasses.replace(design[name], n=args.num_train, seed=seed)
            if not path.exists():
                work.append((name, corpus, path))
            elif (before := read_json(path)["corpus"]) != dataclasses.asdict(corpus):
                raise InputError(f"{path} is of another corpus ({before}); give another --output_dir")
    print(f"{len(work)} cells to do, {len(args.cells) * args.num_seeds - len(work)} done")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started here
    with contextlib.ExitStack() as stack:
        each = map  # with one job nothing is left running when this process is killed
        if args.jobs > 1:
            each = stack.enter_context(ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"))).map
        for (name, corpus, path), _ in zip(work, each(run_cell, work), strict=True):
            print(f"{name} seed {corpus.seed}: {read_json(path)['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    run_script(main)
