"""Makes what a strategy needs and nobody gave: a short proxy run's dynamics, embeddings, logits, clusters, irreducible
losses. Runs the project's own scripts, one after the other, in `<output_dir>/selector/`, where the results stay for
reuse; a stage whose result is there is not run again. Standard library and numpy only.
"""

import argparse
import contextlib
import logging
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from utils.command_line import positive_float, positive_int
from utils.errors import InputError, Interrupted, RunFailed, StopSignal
from utils.run_directory import RESULTS_FILE

logger = logging.getLogger(__name__)

FORWARD = 1 / 3  # of a training pass: the backward pass is twice the forward one
ROOT = Path(__file__).resolve().parents[2]


def add_selector_args(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("making what the strategy needs, where no file is given")
    group.add_argument(
        "--selector_model",
        metavar="CHECKPOINT",
        help="fine-tuned checkpoint for embeddings and logits (default: that of a proxy run)",
    )
    group.add_argument(
        "--proxy_epochs", type=positive_float, default=2.0, help="epochs of the proxy run on all of the data"
    )
    group.add_argument(
        "--proxy_snapshots", type=positive_int, default=2, help="snapshots of the training dynamics per epoch"
    )
    group.add_argument("--num_clusters", type=positive_int, default=64, help="clusters, where the strategy needs some")


class Selector:
    """The stages, each returning the file or folder it leaves; all seeded by the selection seed, never the model's.

    Without `make` nothing is run: the paths are those that the stages would leave.
    """

    def __init__(self, args: argparse.Namespace, seed: int, *, make: bool = True):
        self.args, self.seed, self.make = args, seed, make
        self.folder = Path(args.output_dir) / "selector"
        self.epochs: dict[Path, float] = {}  # what each stage asked for costs, in training epochs on all of the data

    def fill_in(self, needs: tuple[str, ...]) -> None:
        """Set the paths that `needs` (keys of strategies.NEEDS) ask for and the flags leave open."""
        args = self.args
        wanted = set(needs)
        if "score" in wanted:
            wanted |= {"embeddings"} if args.score == "embedding" else set() if args.embedding_path else {"difficulty"}
        if wanted & {"dynamics", "two snapshots"} or ("difficulty" in wanted and not args.logits_path):
            args.dynamics_path = args.dynamics_path or str(self.proxy_run() / "dynamics.npz")
        clusters_to_make = "clusters" in wanted and not args.cluster_path
        if (wanted & {"embeddings", "pooler"} or clusters_to_make) and not args.embedding_path:
            pooling = "pooler" if "pooler" in wanted else "cls"
            args.embedding_path = str(self.features(pooling=pooling))
        if "logits" in wanted and not args.logits_path:
            args.logits_path = str(self.features(logits=True))
        if clusters_to_make:
            args.cluster_path = str(self.clusters(args.embedding_path))

    def proxy_run(self) -> Path:
        """A run on everything that records its dynamics; its folder is a checkpoint too."""
        out = self.folder / "proxy_run"
        snapshots = ["--record_dynamics", "--dynamics_eval_mode", "--dynamics_per_epoch", self.args.proxy_snapshots]
        passes = round(self.args.proxy_epochs * self.args.proxy_snapshots)
        self._train(out, self.args.proxy_epochs, *snapshots, costs=self.args.proxy_epochs + passes * FORWARD)
        return out

    def features(self, *, pooling: str = "cls", logits: bool = False) -> Path:
        """Embeddings, or logits, of the training split by the selector model."""
        model = self.args.selector_model or self.proxy_run()
        out = self.folder / "features"
        task = self.args.task_name.lower()
        path = out / f"{'logits' if logits else f'{pooling}_embeddings'}_{task}_train.npy"
        more = ["--logits"] if logits else []
        self._run(
            "get_embeddings.py",
            "--model_name_or_path",
            model,
            *self._data_flags(),
            "--pooling",
            pooling,
            *more,
            "--output_dir",
            out,
            done=path.with_suffix(".json"),
            costs=FORWARD,
        )
        return path

    def clusters(self, embedding_path) -> Path:
        out = self.folder / "clusters"
        self._run(
            "cluster_embeddings.py", "--embedding_path", embedding_path, "--task_name", self.args.task_name,
            *(["--data_dir", self.args.data_dir] if self.args.data_dir else []),
            "--num_clusters", self.args.num_clusters, "--num_seeds", 1, "--random_state", self.seed, "--output_dir", out,
            done=out / "clusters.npz", main_only=True,
        )  # fmt: skip
        return out / "clusters.npz"

    def irreducible_loss(self, examples) -> Path:
        """Cross-fitted: each half's losses under a model trained on the other half. Mindermann et al. 2022, section 4."""
        import numpy as np

        from utils.files import write_npz
        from utils.selection.selection import Selection

        path = self.folder / "irreducible_loss.npz"
        if path.exists():
            return path
        order = np.random.default_rng([self.seed, 2]).permutation(len(examples))
        halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        loss = np.empty(len(examples), dtype=np.float32)
        for k, half in enumerate(halves):
            run, features = self.folder / f"half_{k}", self.folder / f"half_{k}_features"
            selection = self.folder / f"half_{k}.npz"
            chosen = Selection(
                half, np.ones(len(half)), len(examples), examples.fingerprint, provenance={"method": f"half {k}"}
            )
            if not selection.exists():
                chosen.save(selection)
            self._train(run, self.args.proxy_epochs, "--selection", selection, costs=self.args.proxy_epochs / 2)
            logits_path = features / f"logits_{examples.task.name}_train.npy"
            self._run(
                "get_embeddings.py",
                "--model_name_or_path",
                run,
                *self._data_flags(),
                "--logits",
                "--output_dir",
                features,
                done=logits_path.with_suffix(".json"),
                costs=FORWARD,
            )
            logits = np.load(logits_path, allow_pickle=False).astype(np.float64)
            other = halves[1 - k]
            z = logits[other]
            top = z.max(1)
            loss[other] = (
                np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(other)), examples.labels[other]]
            )
        write_npz(path, irreducible_loss=loss)
        return path

    # ------------------------------------------------------------------------------------------------------- processes
    def _data_flags(self) -> list:
        args = self.args
        flags = ["--task_name", args.task_name, "--max_seq_length", args.max_seq_length]
        for name in ("data_dir", "cache_dir", "tokens_per_micro_batch"):
            if getattr(args, name):
                flags += [f"--{name}", getattr(args, name)]
        return flags + [f"--{name}" for name in ("fp16", "bf16", "use_cpu") if getattr(args, name)]

    def _train(self, out: Path, epochs: float, *more, costs: float) -> None:
        args = self.args
        flags = []
        for name in ("model_name_or_path", "config_name", "tokenizer_name", "model_revision", "label_order"):
            if getattr(args, name):
                flags += [f"--{name}", getattr(args, name)]
        for name in (
            "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay",
            "warmup_steps", "warmup_ratio", "lr_scheduler_type", "max_grad_norm", "freeze_layers",
        ):  # fmt: skip
            flags += [f"--{name}", getattr(args, name)]
        self._run(
            "run_glue.py", *flags, *self._data_flags(), "--do_train", "--num_train_epochs", epochs,
            "--seed", self.seed, "--output_dir", out, *more, done=out / RESULTS_FILE, costs=costs,
        )  # fmt: skip

    def _run(self, *command, done: Path, costs: float = 0.0, main_only: bool = False) -> None:
        """Run a script unless `done` exists; under a launcher every process joins in, or waits for the first one."""
        self.epochs[done] = costs
        if done.exists() or not self.make:
            return
        words = [str(word) for word in command]
        if main_only and int(os.environ.get("RANK", 0)):
            while not done.exists():
                time.sleep(1)
        else:
            logger.info("%s", shlex.join(words))
            status = _wait(subprocess.Popen([sys.executable, str(ROOT / words[0]), *words[1:]]))
            if status == 2:
                raise InputError(f"{words[0]} could not use its input; its own message is above")
            if status:
                raise RunFailed(
                    f"{words[0]} ended with status {status}; its own message is above. Run the same command again to continue"
                )


def _wait(process: subprocess.Popen) -> int:
    """Its exit status; a stop signal is passed on, and Interrupted raised once the process has saved and ended."""
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
