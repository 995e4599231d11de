"""Do scores of training examples predict what retraining without them does? The linear datamodeling score.

  python -m benchmarks.datamodels --model_name_or_path MODEL --data_dir $GLUE_DIR/MNLI --output_dir $OUT/datamodels --jobs 2

Draws a pool of training examples, trains on random halves of it, and asks every score which halves give the better model.
Of a half S and a dev example z, the measurement is the margin log p(y) - log(1 - p(y)) of z after training on S, and the
prediction is the sum of the scores of S. A score that depends on z has a prediction for each z, any other one has the same
for all. `tracin` is the product of the gradients of the classifier layer; `similarity` is the cosine of its inputs. Two columns:

  each example  rank correlation of prediction and measurement over the halves, averaged over z (Park et al. 2023,
                arXiv 2303.14186, section 2)
  whole set     the same of the mean prediction and the mean margin of all z

with 95 % intervals: percentile bootstrap over the halves. Each half is trained on once, with a seed of its own (Park et al.
average several runs), so the noise of training lowers all numbers alike. The other scores are those of the strategies. A high
score means chosen first, so a negative number says that the first choices make the model worse. All scores come from one
proxy run on the pool.
Every other flag is run_glue.py's and goes to every run. A command that was stopped is repeated and goes on. Writes
--output (JSON) and prints the table.
"""

import dataclasses
from pathlib import Path

from benchmarks.selection import machine
from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import InputError, RunFailed, run_script
from utils.files import folder_lock, read_json, write_json
from utils.flags import (
    DataSettings,
    DeviceSettings,
    ModelSettings,
    OutputSettings,
    RunSettings,
    SourceSettings,
    StageSettings,
    TrainingSettings,
    name_data,
)
from utils.run_directory import RESULTS_FILE
from utils.settings import add_flags, settings_from, words_of
from utils.sweep.plan import DECIDED

RESULT = Path(__file__).resolve().parent / "results" / "datamodels.json"
# Strategies whose scores do not depend on the dev example.
SCORED = ("el2n", "grand", "forgetting", "ambiguous", "hard", "loss", "aum", "entropy", "rare")
PATHS = ("output", "output_dir", "data_dir", "cache_dir")  # where things lie says nothing to others
RANDOM, TRACIN, SIMILARITY = "random", "tracin", "similarity"
RESAMPLES = 500
SMALLEST_P = 1e-6  # predictions_*.tsv has six decimals
SEED = 0  # of the halves, the proxy run, and the bootstrap


def linear_datamodeling_scores(scores: dict, members, margins, *, resamples: int = RESAMPLES) -> dict:
    """scores: by name, float (n,) or (n, z); members: bool (halves, n), what each half holds; margins: float (halves, z).

    Returns by name {"each example": [mean, low, high], "whole set": [correlation, low, high]}, None where nothing varies.
    """
    import numpy as np

    predicted = {}
    for name, own in scores.items():
        own = np.asarray(own, dtype=np.float64).reshape(len(members[0]), -1)
        unit = np.maximum(np.abs(own).max(0), np.finfo(np.float64).tiny)
        predicted[name] = unit * np.round(members @ ((own - own.mean(0)) / unit), 9)  # equal scores give equal sums
    rng, rows = np.random.default_rng(SEED), np.arange(len(members))
    found = {name: [] for name in scores}  # the first draw is the sample itself
    for draw in (rows, *(rng.choice(rows, len(rows)) for _ in range(resamples))):
        each, whole = _ranks(margins[draw]), _ranks(margins[draw].mean(1, keepdims=True))
        for name, own in predicted.items():
            of_each = _correlation(_ranks(own[draw]), each)
            of_whole = _correlation(_ranks(own[draw].mean(1, keepdims=True)), whole)
            known = of_each[~np.isnan(of_each)]
            found[name].append((known.mean() if len(known) else np.nan, of_whole[0]))
    return {
        name: {
            column: _interval(values)
            for column, values in zip(("each example", "whole set"), np.array(own).T, strict=True)
        }
        for name, own in found.items()
    }


def _ranks(values):
    """float (halves, z): the rank of each half in its column, about the mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    return ranks - ranks.mean(0)


def _correlation(first, second):
    """float (z,): of each column of two arrays of centred ranks; NaN where one is constant. The first may have one column."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        return (first * second).sum(0) / np.sqrt((first**2).sum(0) * (second**2).sum(0))


def _interval(values) -> list:
    """The first value, and the 95 % percentile interval of the others; None where a number is not defined."""
    import numpy as np

    value, known = values[0], values[1:][~np.isnan(values[1:])]
    ends = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return [None if np.isnan(number) else round(float(number), 4) for number in (value, *ends)]


class Experiment:
    """One --output_dir: the pool, its halves, the runs on them, the scores of its examples."""

    def __init__(self, run: RunSettings, pool_size: int, halves: int):
        from utils.data.sources import open_data
        from utils.sweep.pool import make_pool

        self.out, self.halves = Path(run.output_dir), halves
        data = open_data(run, cache_dir=run.cache_dir)
        if data.task.regression or not data.task.dev:
            raise InputError("this benchmark needs classes, and a dev set or --validation_file")
        if pool_size > (n := len(data.load("train"))):
            raise InputError(f"--pool_size {pool_size}: the data has {n} training examples")
        self._check_folder(run, data, pool_size)
        self.run = make_pool(data, run, pool_size, self.out / "pool")
        self.data = open_data(self.run, cache_dir=run.cache_dir)
        self.train, self.dev = self.data.load("train"), next(iter(self.data.task.dev))

    def _check_folder(self, run: RunSettings, data, pool_size: int) -> None:
        flags = [*self._words(run), "--pool_size", str(pool_size)]
        identity = {"flags": flags, "fingerprint": data.load("train").fingerprint}
        path = self.out / "experiment.json"
        if path.exists() and read_json(path) != identity:
            raise InputError(
                f"--output_dir {self.out} holds another experiment; repeat its flags or give another folder"
            )
        write_json(path, identity)

    @staticmethod
    def _words(run: RunSettings) -> list[str]:
        kinds = (ModelSettings, SourceSettings, DataSettings, DeviceSettings, StageSettings, TrainingSettings)
        return words_of(run, *kinds, OutputSettings, leave_out=DECIDED)

    def members(self):
        """bool (halves, n): what each half holds. More halves leave the earlier ones as they are."""
        import numpy as np

        n, members = len(self.train), np.zeros((self.halves, len(self.train)), dtype=bool)
        for half, row in enumerate(members):
            row[np.random.default_rng([SEED, half]).permutation(n)[: n // 2]] = True
        return members

    def retrain(self, jobs: int) -> None:
        """One run on each half; the seed of a run is its number."""
        import numpy as np
        from tqdm import tqdm

        from utils.selection.selection import Selection
        from utils.sweep.jobs import Command, Job, run_jobs

        todo = []
        for half, chosen in enumerate(self.members()):
            folder, path = self.out / "runs" / f"{half}", self.out / "halves" / f"{half}.npz"
            words = ["--do_train", "--do_eval", *self._words(self.run), "--seed", f"{half}", "--selection", f"{path}"]
            command = Command("run_glue", (*words, "--output_dir", f"{folder}"), folder / RESULTS_FILE)
            if not command.done.exists():
                rows = np.flatnonzero(chosen)
                about = {"method": "random half", "half": half}
                n, fingerprint = len(self.train), self.train.fingerprint
                path.parent.mkdir(exist_ok=True)
                Selection(rows, np.ones(len(rows)), n, fingerprint, provenance=about).save(path)
                todo.append(Job(f"{half}", folder, (command,), 1.0, remove=(folder / "model.safetensors",)))
        with tqdm(total=len(todo), desc="retraining", unit=" run", disable=not todo) as bar:
            failed = run_jobs(todo, devices=[None] * jobs, threads=1, on_end=lambda job, failed: bar.update())
        if failed:
            name, why = next(iter(failed.items()))
            raise RunFailed(f"{len(failed)} runs failed, half {name} among them: {why}. Repeat the command")

    def margins(self):
        """float (halves, z) margins of the dev examples that every run was evaluated on, and their rows (z,)."""
        import numpy as np

        from utils.data.predictions import read_predictions

        found, rows = [], None
        for half in range(self.halves):
            path = self.out / "runs" / f"{half}" / f"predictions_{self.dev}.tsv"
            predictions = read_predictions(path)
            if rows is not None and not np.array_equal(rows, predictions.index):
                raise InputError(f"{path}: other dev examples than in the other runs")
            rows = predictions.index
            gold = np.clip(predictions.p_gold, SMALLEST_P, 1 - SMALLEST_P)
            found.append(np.log(gold) - np.log1p(-gold))
        return np.stack(found), rows

    def scores(self, rows) -> dict:
        """By name: scores float (n,), or (n, z) of those that look at the dev examples `rows` (z,)."""
        import numpy as np

        from utils.selection.ingredients import InputMaker, MakerSettings
        from utils.selection.strategies import NEEDS, Inputs, get_strategy, load_inputs, select
        from utils.selection.strategies.gradients import errors
        from utils.selection.strategies.vectors import unit

        n, facts = len(self.train), {"seed": SEED, "n": len(self.train), "fingerprint": self.train.fingerprint}
        settings = dataclasses.replace(self.run, output_dir=str(self.out))
        found = {RANDOM: np.random.default_rng(SEED).normal(size=n)}
        for name in SCORED:
            needs = [NEEDS[need] for need in get_strategy(name).needs]
            if not all(need.flags or need.make or need.present(Inputs.of(self.train)) for need in needs):
                continue  # texts that are no pairs, for example
            files = InputMaker(settings, MakerSettings(), **facts).fill_in(needs)
            found[name] = select(name, load_inputs(self.train, **files), n, SEED).scores
        maker = InputMaker(settings, MakerSettings(), **facts)
        folders = [maker.gradients(split) for split in ("train", self.dev)]
        inputs = load_inputs(self.train, gradient_path=folders[:1], target_path=folders[1:])
        own, wanted = inputs.checkpoints[0], inputs.target[0]
        own_vectors, vectors = np.asarray(own.embeddings), np.asarray(wanted.embeddings)[rows]
        error = errors(own.logits, inputs.classes) @ errors(wanted.logits, wanted.gold)[rows].T
        found[TRACIN] = error * (own_vectors @ vectors.T + 1)
        found[SIMILARITY] = unit(own_vectors) @ unit(vectors).T
        return found


def table(found: dict) -> str:
    """Best first, by the column `each example`."""
    lines = ["| score | each example | whole set |", "|---|---|---|"]
    for name, by in sorted(found.items(), key=lambda item: -(item[1]["each example"][0] or 0.0)):
        cells = ["-" if None in cell else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*cell) for cell in by.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="benchmarks.datamodels")
    parser.add_argument("--pool_size", type=positive_int, default=3200, help="training examples of the pool")
    parser.add_argument("--halves", type=positive_int, default=100, help="random halves to train on")
    parser.add_argument("--jobs", type=positive_int, default=1, help="runs at a time, of one thread each")
    parser.add_argument("--output", type=Path, default=RESULT)
    add_flags(parser, RunSettings, required=("output_dir",), fold=True)
    args = parse_args(parser, argv)
    name_data(args, "MNLI")
    for name in DECIDED:
        if name not in ("output_dir", "do_train", "do_eval") and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} is not for this benchmark, which decides it for each run")
    if args.halves < 3:
        parser.error(f"--halves {args.halves}: a rank correlation needs 3 at least")
    run = settings_from(RunSettings, args)
    with folder_lock(Path(run.output_dir)):
        experiment = Experiment(run, args.pool_size, args.halves)
        experiment.retrain(args.jobs)
        members, (margins, rows) = experiment.members(), experiment.margins()
        scores = experiment.scores(rows)
    found = linear_datamodeling_scores(scores, members, margins)
    facts = {"pool": args.pool_size, "halves": args.halves, "dev_examples": len(rows), "machine": machine()}
    given = {name: value for name, value in vars(args).items() if value != parser.get_default(name)}
    given = {name: value for name, value in given.items() if name not in PATHS}
    given["model_name_or_path"] = Path(run.model_name_or_path or run.config_name).name
    write_json(args.output, {**facts, "arguments": given, "scores": found})
    print(table(found))
    print(f"written: {args.output}")


if __name__ == "__main__":
    run_script(main)
