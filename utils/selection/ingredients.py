"""Computes the inputs that a strategy needs and the user did not supply: training dynamics, embeddings, logits, clusters,
irreducible losses.

Each stage is a script of this project, run in a process of its own. Its results stay in `<output_dir>/selector/` and are
used again by the next run, unless anything that they were made from has changed. No torch is imported here.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.command_line import positive_float, positive_int
from utils.costs import FORWARD
from utils.data.hub import load_config
from utils.data.pooling import choose_pooling
from utils.data.sources import data_name
from utils.errors import EXIT_BAD_INPUT, InputError, Interrupted, RunFailed, StopSignal
from utils.files import file_sha256, read_json, write_json
from utils.flags import DataSettings, DeviceSettings, ModelSettings, RunSettings, SourceSettings, TrainingSettings
from utils.run_directory import RESULTS_FILE
from utils.settings import flag, words_of

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "selector"
# Of the training settings, what the stages decide for themselves.
_DECIDED = ("seed", "selection_seed", "num_train_epochs", "max_steps", "fp16", "bf16", "use_cpu")


@dataclass(frozen=True)
class MakerSettings:
    """How inputs are computed that no flag gives."""

    title: ClassVar[str] = "making what the strategy needs, where no file is given"
    selector_model: str | None = flag(
        None, "fine-tuned checkpoint for embeddings and logits (default: that of a proxy run)", metavar="CHECKPOINT"
    )
    proxy_epochs: float = flag(2.0, "epochs of the proxy run on all of the data", type=positive_float)
    proxy_snapshots: int = flag(2, "snapshots of the training dynamics per epoch", type=positive_int)
    proxy_seeds: int = flag(
        1, "proxy runs, with one seed after another; scores are averaged over them", type=positive_int
    )
    crossfit_epochs: float = flag(
        5.0, "epochs of each run on one half of the data, which judges the other half", type=positive_float
    )
    crossfit_weight: float = flag(
        50.0, "weight in these runs of an example that shallow models get wrong; others weigh 1", type=positive_float
    )
    num_clusters: int = flag(64, "clusters, where the strategy needs some", type=positive_int)


class InputMaker:
    """The stages. Each returns the path of its result; all are seeded by the selection seed, never the model's.

    settings: of the run that will use the inputs; making: the flags above; n, fingerprint: of the training examples; given:
    the files that the user named, flag -> path. epochs: filled with what each stage that is asked for costs, in training
    epochs on all of the data. With `make` False nothing is run: the paths are those that the stages would leave, the costs what
    they would be.
    """

    def __init__(
        self,
        settings: RunSettings,
        making: MakerSettings,
        *,
        seed: int,
        n: int,
        fingerprint: str,
        given: Mapping | None = None,
        make: bool = True,
        epochs: dict[Path, float] | None = None,
    ):
        self.settings, self.making, self.seed, self.make = settings, making, seed, make
        self.n, self.fingerprint = n, fingerprint
        self.given = dict(given or {})
        self.folder = Path(settings.output_dir) / FOLDER
        self.epochs = {} if epochs is None else epochs

    def fill_in(self, needs, parameters: Mapping | None = None) -> dict:
        """Flag -> path of everything that `needs` (records of strategies.needs) ask for: what the user gave, and what is
        made here for the rest. parameters: those of the strategy."""
        parameters = parameters or {}
        for need in needs:
            if not need.is_given(self.given, parameters):
                if need.make is None:
                    raise InputError(f"this strategy needs {need.way_out}")
                self.given |= {name: _text(path) for name, path in need.make(self, parameters).items()}
        return {name: path for name, path in self.given.items() if path}

    # ------------------------------------------------------------------------------------------------------- the stages
    def dynamics(self) -> list[Path]:
        """The training dynamics of every proxy run."""
        return [self.proxy_run(number) / "dynamics.npz" for number in range(self.making.proxy_seeds)]

    def proxy_run(self, number: int = 0) -> Path:
        """A run on everything that records its dynamics; its seed is `number` above the first. Its folder is a checkpoint
        too."""
        epochs, snapshots = self.making.proxy_epochs, self.making.proxy_snapshots
        recording = ["--record_dynamics", "--dynamics_eval_mode", "--dynamics_per_epoch", snapshots]
        name, costs = f"proxy_run_{number}" if number else "proxy_run", epochs + round(epochs * snapshots) * FORWARD
        return self._train(name, epochs, *recording, costs=costs, seed=self.seed + number)

    def embeddings(self, pooling: str) -> Path:
        """Embeddings of the training split by the selector model; pooling: as of get_embeddings.py."""
        pooling = self._auto_pooling if pooling == "auto" else pooling
        kind = f"{pooling}_embeddings"
        return self._features(kind, self.making.selector_model or self.proxy_run(), kind, pooling)

    def logits(self) -> Path:
        """Logits of the training split by the selector model."""
        return self._features("logits", self.making.selector_model or self.proxy_run(), "logits", self._auto_pooling)

    def gradients(self, split: str) -> Path:
        """The folder from which tracin reads gradients of a split: the selector model's logits and the inputs of its
        classifier, and the gold labels."""
        model, out = self.making.selector_model or self.proxy_run(), self.folder / f"gradients_{split}"
        words = ["get_embeddings.py", "--model_name_or_path", model, *self._data_words(), "--split", split]
        words += ["--pooling", "pooler", "--logits"]
        done = out / f"gold_{data_name(self.settings)}_{split}.npy"
        self._run(words, out, done=done, reads=[model], costs=FORWARD)
        return out

    def clusters(self) -> Path:
        """k-means clusters of the embeddings: the user's embeddings, or those made here."""
        embeddings = self.given.get("embedding_path") or self.embeddings("auto")
        out = self.folder / "clusters"
        words = [
            "cluster_embeddings.py", "--embedding_path", embeddings,
            *words_of(self.settings, SourceSettings),
            *(["--cache_dir", self.settings.cache_dir] if self.settings.cache_dir else []),
            "--num_clusters", self.making.num_clusters, "--num_seeds", 1, "--random_state", self.seed,
        ]  # fmt: skip
        self._run(words, out, done=out / "clusters.json", reads=[embeddings], main_only=True)
        return out / "clusters.npz"

    def teacher_logits(self, selection) -> Path:
        """Logits of a run on these rows with the plain objective, by the recipe of the run that will use them."""
        settings, rows = self.settings, self.folder / "teacher_rows.npz"
        epochs, more = settings.num_train_epochs, []
        if settings.max_steps:
            epochs, more = (
                settings.max_steps / -(-len(selection) // settings.examples_per_step),
                ["--max_steps", settings.max_steps],
            )
        if self.make:
            selection.save(rows)
        costs = epochs * len(selection) / selection.n_total
        run = self._train("teacher", settings.num_train_epochs, *more, costs=costs, rows=rows)
        return self._features("teacher_features", run, "logits", "auto")

    def irreducible_loss(self, examples) -> Path:
        """Cross-fitted: each half's losses under a model trained on the other half. Mindermann et al. 2022, section 4."""
        from utils.data.logits import cross_entropy
        from utils.files import write_npz

        path = self.folder / "irreducible_loss.npz"
        judged = self._judged_by_the_other_half("half", self.making.proxy_epochs)
        if self.make:
            write_npz(path, irreducible_loss=cross_entropy(judged, examples.labels))
        return path

    def held_out(self) -> Path:
        """Logits float32 (n, C) of every example by a model that was not trained on it. What shallow models get wrong weighs
        more in its training, so that a few epochs suffice to learn what is rare."""
        from utils.files import atomic_path, save_array

        path, epochs = self.folder / "held_out_logits.npy", self.making.crossfit_epochs
        logits = self._judged_by_the_other_half("crossfit", epochs, self._weights() if self.make else None)
        if self.make:
            with atomic_path(path) as temporary:
                save_array(temporary, logits)
        return path

    def _weights(self):
        """float64 (n,), from 1 to crossfit_weight: the weight grows with the probability that shallow models give to other
        labels than the gold one."""
        from utils.data.sources import open_data
        from utils.selection.bias_models import shallow_probability

        examples = open_data(self.settings, cache_dir=self.settings.cache_dir).load("train")
        wrong = 1 - shallow_probability(examples.premise_first, examples.labels, self.seed)
        return 1 + (self.making.crossfit_weight - 1) * wrong

    def two_splits(self) -> list[Path]:
        """The training dynamics of a run on one half of the data, and of one that goes on with the other half."""
        first, second = (self._half(k) for k in (0, 1))
        epochs, snapshots = self.making.proxy_epochs, self.making.proxy_snapshots
        recording = ["--record_dynamics", "--dynamics_eval_mode", "--dynamics_per_epoch", snapshots]
        passes = round(epochs * snapshots) * FORWARD
        run_0 = self._train("split_0", epochs, *recording, costs=(epochs + passes) / 2, rows=first)
        recording.append("--dynamics_all_rows")
        run_1 = self._train("split_1", epochs, *recording, costs=epochs / 2 + passes, rows=second, start=run_0)
        return [run / "dynamics.npz" for run in (run_0, run_1)]

    def _judged_by_the_other_half(self, name: str, epochs: float, weights=None):
        """Logits (n, C): each half of the data by a model that was trained on the other half alone, with these weights (n,)."""
        import numpy as np

        judged = []
        for k in (0, 1):
            run = self._train(f"{name}_{k}", epochs, costs=epochs / 2, rows=self._half(k, name, weights))
            judged.append(self._features(f"{name}_{k}_features", run, "logits", "auto"))
        if not self.make:
            return None
        logits, second = (np.load(one, allow_pickle=False) for one in judged)
        logits[self._halves()[0]] = second[self._halves()[0]]
        return logits

    def _halves(self) -> list:
        """Rows int64, ascending, of two halves of the data, drawn by the seed."""
        import numpy as np

        order = np.random.default_rng([self.seed, 2]).permutation(self.n)
        return [np.sort(order[: self.n // 2]), np.sort(order[self.n // 2 :])]

    def _half(self, k: int, name: str = "half", weights=None) -> Path:
        """The Selection of one half; weights (n,) are divided by their mean there."""
        import numpy as np

        from utils.selection.selection import Selection

        path = self.folder / f"{name}_{k}.npz"
        if self.make:
            rows = self._halves()[k]
            own = np.ones(len(rows)) if weights is None else weights[rows] / weights[rows].mean()
            Selection(rows, own, self.n, self.fingerprint, provenance={"method": f"half {k}"}).save(path)
        return path

    # ---------------------------------------------------------------------------------------------------------- commands
    def _train(
        self,
        name: str,
        epochs: float,
        *more,
        costs: float,
        seed: int | None = None,
        rows: Path | None = None,
        start: Path | None = None,
    ) -> Path:
        """Run run_glue.py in a folder of this name; seed: by default the selection seed; rows: the Selection to train on, by
        default everything; start: a checkpoint of another stage to go on from, by default the model of the settings."""
        settings, out = self.settings, self.folder / name
        model = ("model_name_or_path", "config_name", "tokenizer_name") if start else ()
        words = ["run_glue.py", "--do_train", *words_of(settings, ModelSettings, leave_out=("cache_dir", *model))]
        words += ["--model_name_or_path", start] if start else []
        words += words_of(settings, TrainingSettings, leave_out=_DECIDED)
        words += [*self._data_words(), "--num_train_epochs", epochs, "--seed", self.seed if seed is None else seed]
        words += ["--selection", rows, *more] if rows else more
        reads = [path for path in (start or settings.model_name_or_path, rows) if path]
        self._run(words, out, done=out / RESULTS_FILE, reads=reads, costs=costs)
        return out

    def _features(self, name: str, model, kind: str, pooling: str) -> Path:
        out = self.folder / name
        path = out / f"{kind}_{data_name(self.settings)}_train.npy"
        more = ["--logits"] if kind == "logits" else []
        words = ["get_embeddings.py", "--model_name_or_path", model, *self._data_words()]
        words += ["--pooling", pooling, *more]
        self._run(words, out, done=path.with_suffix(".json"), reads=[model], costs=FORWARD)
        return path

    @functools.cached_property
    def _auto_pooling(self) -> str:
        """What get_embeddings.py --pooling auto takes for the selector model: the names of its files depend on it."""
        settings = self.settings
        source = self.making.selector_model or settings.config_name or settings.model_name_or_path
        return choose_pooling(load_config(source, settings), "auto")

    def _data_words(self) -> list[str]:
        words = words_of(self.settings, SourceSettings, DataSettings, DeviceSettings, leave_out=("overwrite_cache",))
        return words + (["--cache_dir", self.settings.cache_dir] if self.settings.cache_dir else [])

    # --------------------------------------------------------------------------------------------------------- processes
    def _run(
        self, words: list, out: Path, *, done: Path, reads=(), costs: float = 0.0, main_only: bool = False
    ) -> None:
        """Run a script unless `done` exists and was made by the same words from the same inputs.

        Under a launcher every process joins in, or, with main_only, waits for the first one.
        """
        self.epochs[done] = costs
        if not self.make:
            return
        words = [str(word) for word in words]
        if main_only and int(os.environ.get("RANK", 0)):
            while not done.exists():
                time.sleep(1)
            return
        identity = self._identity(words, reads)
        record = done.with_name(f"{done.stem}.made_from.json")
        if done.exists() and _recorded(record) == identity:
            return
        if done.exists() or _recorded(record) not in (None, identity):
            logger.warning("%s was made from other inputs or with other settings: it is made again", out)
            shutil.rmtree(out)
        write_json(record, {"identity": identity, "command": words})
        words += ["--output_dir", str(out)]
        logger.info("%s", shlex.join(words))
        self._execute(words)

    def _execute(self, words: list[str]) -> None:
        """Run a script to its end, in a process of its own. Raises InputError or RunFailed where it fails."""
        with_parent = _end_with_parent(os.getpid()) if sys.platform == "linux" else None
        status = _wait(subprocess.Popen([sys.executable, str(ROOT / words[0]), *words[1:]], preexec_fn=with_parent))
        if status == EXIT_BAD_INPUT:
            raise InputError(f"{words[0]} could not use its input; its own message is above")
        if status:
            raise RunFailed(
                f"{words[0]} ended with status {status}; its own message is above. Run the same command again to continue"
            )

    def _identity(self, words: list[str], reads) -> str:
        """A hash of everything that a stage's result depends on: its command, the examples, the contents it reads."""
        known = [self.fingerprint, *(word.replace(str(self.folder), FOLDER) for word in words)]
        known += [_content_hash(Path(path)) for path in reads if Path(path).exists()]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _recorded(record: Path) -> str | None:
    return read_json(record).get("identity") if record.exists() else None


def _content_hash(path: Path) -> str:
    """Of a Selection, of another file, or of a folder: of the files that say what a checkpoint is, else of all."""
    if path.suffix == ".npz":
        from utils.selection.selection import Selection

        return Selection.load(path).digest
    if path.is_file():
        return file_sha256(path)
    files = sorted(p for p in path.iterdir() if p.is_file())
    kept = [p for p in files if p.suffix in (".safetensors", ".bin") or p.name == "config.json"] or files
    return hashlib.sha256("".join(file_sha256(p) for p in kept).encode()).hexdigest()


def _text(path):
    return [str(one) for one in path] if isinstance(path, list) else str(path)


def _end_with_parent(parent: int):
    """The function that a new process calls first: it has the kernel kill the process when this one dies. Otherwise it
    would still be at work in the folder of its stage when the same command is given again."""
    import ctypes

    library, set_parent_death_signal = ctypes.CDLL(None), 1

    def first():
        library.prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return first


def _wait(process: subprocess.Popen) -> int:
    """The exit status of a process. A stop signal is passed on, and Interrupted raised once the process has ended."""
    with StopSignal() as stop:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=0.2)
                break
            if stop.requested:
                process.terminate()
                process.wait()
    if stop.requested:
        raise Interrupted(f"{stop.requested}; run the same command again to continue")
    return status
