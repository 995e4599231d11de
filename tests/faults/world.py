"""The small world of the fault campaign: what each script reads and writes, made once and copied for every round."""

import json
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests import forked
from utils.files import file_sha256, read_json, write_json
from utils.selection.selection import Selection

HANG = 180  # seconds
TRAIN = (
    "--task_name MNLI --data_dir data --do_eval --max_seq_length 32 --per_device_train_batch_size 8 --learning_rate 3e-3 "
    "--per_device_eval_batch_size 64 --logging_steps 1"
)
PLAIN = f"--config_name tiny --tokenizer_name tiny {TRAIN} --do_train --num_train_epochs 6 --save_steps 12"
FRESH = f"{PLAIN} --record_dynamics"
EMBED = "--model_name_or_path runs/all --task_name MNLI --data_dir data --max_seq_length 32"
CLUSTER = "--embedding_path embeddings/cls_embeddings_mnli_train.npy --data_dir data --num_clusters 3 --num_seeds 1"
MODEL = ("runs/all/config.json", "runs/all/model.safetensors", "runs/all/tokenizer*.json")
SPLITS = ("data/*.tsv", "cache/encoded/*/*")


@dataclass(frozen=True)
class Stage:
    """One script: its flags, patterns of the files that it reads, its output folder.

    rival: flags of a second process; compared: pattern of the results that must be alike in every undisturbed run; slow:
    it starts processes of its own, so that few rounds take it.
    """

    script: str
    words: str
    reads: tuple[str, ...]
    out: str
    rival: str = ""
    compared: str = "**/*"
    slow: bool = False

    def flags(self, more: str = "") -> list[str]:
        name = () if self.script == "report.py" else ("--output_dir", self.out)
        return [*self.words.split(), *more.split(), *name]


def select(strategy: str, *reads: str, words: str) -> Stage:
    words = f"--strategy {strategy} --data_pct 0.5 --data_dir data {words}"
    return Stage("select_examples.py", words, ("data/train.tsv", *reads), f"chosen_{strategy}", "--selection_seed 1")


# In this order they make the world. `broken` is a run that was killed; it is made apart.
STAGES = {
    "corpus": Stage("demo/generate.py", "--num_train 60 --num_dev 12", (), "data"),
    "challenge": Stage("hans/generate.py", "--per_subcase 2", (), "hans", "--seed 1"),
    "train": Stage("run_glue.py", FRESH, (*SPLITS, "tiny/*"), "runs/all", "--seed 1"),
    "embed": Stage("get_embeddings.py", f"{EMBED} --logits", (*SPLITS, *MODEL), "embeddings"),
    "cluster": Stage("cluster_embeddings.py", CLUSTER, ("data/train.tsv", "embeddings/cls*"), "clusters"),
    "diverse": select("diverse", "clusters/clusters.npz", words="--cluster_path clusters/clusters.npz"),
    "ambiguous": select("ambiguous", "runs/all/dynamics.npz", words="--dynamics_path runs/all/dynamics.npz"),
    "kcenter": select("kcenter", "embeddings/cls*", words="--embedding_path embeddings/cls_embeddings_mnli_train.npy"),
    "entropy": select("entropy", "embeddings/logits*", words="--logits_path embeddings/logits_mnli_train.npy"),
    "subset": Stage(
        "run_glue.py",
        f"{FRESH} --selection chosen_diverse/selection.npz",
        (*SPLITS, "tiny/*", "chosen_diverse/selection.npz"),
        "runs/diverse",
        "--seed 1",
    ),
    "subsample": Stage(
        "subsampling_mnli.py", f"{PLAIN} --data_pct 0.5", (*SPLITS, "tiny/*"), "runs/subsampled", "--seed 1"
    ),
    "importance": Stage(
        "importance_sampling_mnli.py",
        f"{PLAIN} --strategy forgetting --data_pct 0.5 --proxy_epochs 2",
        (*SPLITS, "tiny/*"),
        "runs/important",
        "--seed 1",
        slow=True,
    ),
    "evaluate": Stage("run_glue.py", f"--model_name_or_path runs/all {TRAIN}", (*SPLITS, *MODEL), "evaluated"),
    "hans": Stage(
        "test_hans.py",
        "--model_name_or_path runs/all --data_dir hans --max_seq_length 32",
        ("hans/*.txt", "cache/encoded/*/*", *MODEL),
        "runs/all/hans",
    ),
    "report": Stage(
        "report.py",
        "runs --output_dir report",
        ("runs/*/r*.json", "runs/*/hans/*.json", "runs/*/predictions*"),
        "report",
    ),
    "sweep": Stage(
        "sweep.py",
        f"{PLAIN} --strategies random --data_pcts 1.0 --seeds 0 1 --hans_dir hans",
        (*SPLITS, "tiny/*", "hans/*.txt"),
        "swept",
        compared="runs/**/*predictions*",
        slow=True,
    ),
    "resume": Stage("run_glue.py", FRESH, ("broken/checkpoints/*/*", "broken/dynamics/*", "broken/run.json"), "broken"),
}


class World:
    """Files of every stage in `folder/whole`, copied to `folder/round` for each round; results nothing happened to."""

    def __init__(self, folder: Path, names=()):
        """names: of the stages that are wanted, in the order of STAGES; those before must make what they read."""
        self.folder, self.whole, self.place = folder, folder / "whole", folder / "round"
        self.names = [name for name in STAGES if not names or name in names]
        if "cluster" in self.names:
            forked.preload("sklearn.cluster")
        self.different: list[str] = []  # what the last comparison found
        self._expected: dict[tuple[str, str], tuple[dict, float]] = {}
        shutil.copytree(forked.ROOT / "demo" / "albert-tiny", self.whole / "tiny")
        config = read_json(self.whole / "tiny" / "config.json")
        write_json(self.whole / "tiny" / "config.json", {**config, "num_hidden_layers": 1})
        self.place = self.whole
        for name in self.names:
            if name == "resume":
                self._kill_a_run()
            else:
                self.run(STAGES[name], check=0)
        self.place = folder / "round"

    def _kill_a_run(self) -> None:
        running, checkpoints = self.start(STAGES["resume"]), self.whole / "broken" / "checkpoints"
        while len(list(checkpoints.glob("step_*"))) < 2 and running.wait(0.002) is None:
            pass
        running.send(signal.SIGKILL)
        assert running.finish().status == -signal.SIGKILL
        (self.whole / "broken" / ".lock").unlink(missing_ok=True)

    def any_stage(self, rng: random.Random, names: list[str]) -> str:
        """One of these stages, a slow one a tenth as often as the others."""
        return rng.choices(names, [0.1 if STAGES[name].slow else 1.0 for name in names])[0]

    def fresh(self, stage: Stage, *, keep: bool = False, cold: bool = False) -> None:
        """A new copy of the world, without the results of this stage unless they are to be kept. cold: no token cache."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.whole, self.place)
        if not keep and stage is not STAGES["resume"]:
            shutil.rmtree(self.place / stage.out)
        if cold:
            shutil.rmtree(self.place / "cache")

    def start(self, stage: Stage, flags=None, *, label: str = "printed", file_size: int = -1) -> forked.Running:
        return forked.start(
            stage.script, *(flags or stage.flags()), printed=self.folder / label, cwd=self.place, file_size=file_size,
            env={"TIS_CACHE": "cache", "TMPDIR": str(self.folder)},
        )  # fmt: skip

    def run(self, stage: Stage, flags=None, *, check: int | None = None, **how) -> forked.Finished:
        done = self.start(stage, flags, **how).finish(HANG)
        assert check is None or done.status == check, f"{stage} {done}"
        return done

    def expected(self, name: str, more: str = "") -> tuple[dict, float]:
        """Results of a stage that nothing happened to, and how many seconds it took."""
        if (name, more) not in self._expected:
            stage, started = STAGES[name], time.perf_counter()
            self.fresh(stage)
            self.run(stage, stage.flags(more), check=0)
            self._expected[name, more] = self.results(stage), time.perf_counter() - started
        return self._expected[name, more]

    def differences(self, name: str, more: str = "") -> list[str]:
        """Files of a stage's results that are not as in an undisturbed run, which must have been made before."""
        found, expected = self.results(STAGES[name]), self._expected[name, more][0]
        self.different = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        return self.different

    def results(self, stage: Stage) -> dict:
        """What a stage left: name -> content that must be alike in every undisturbed run."""
        found = self.place / stage.out
        skipped = ("run.json", ".lock", "log.jsonl")
        paths = [path for path in found.glob(stage.compared) if path.is_file() and path.name not in skipped]
        return {str(path.relative_to(found)): _content(path) for path in paths}

    def files(self, stage: Stage) -> dict:
        """Hash of every file that the script must leave alone: all but the caches, and a run that it continues."""
        own = self.place / "broken" if stage is STAGES["resume"] else self.place / "cache"
        paths = [
            path
            for path in self.place.rglob("*")
            if path.is_file() and not {own, self.place / "cache"} & {*path.parents}
        ]
        return {path: file_sha256(path) for path in paths}


def _content(path: Path):
    if path.name == "selection.npz":  # what is chosen, not the record of the files that it was chosen from
        return Selection.load(path).digest
    if path.suffix != ".json":
        return file_sha256(path)
    return _without_times(json.loads(path.read_text()))


def _without_times(value):
    if isinstance(value, dict):
        varying = ("versions", "arguments", "sha256")
        return {k: _without_times(v) for k, v in value.items() if "second" not in k and k not in varying}
    return value
