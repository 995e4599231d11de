"""The output folder of one run: `run.json` first, `results.json` last."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from utils.errors import InputError
from utils.files import read_json, to_json, write_json

RESULTS_FILE = "results.json"  # written last: it exists means the run is finished
RUN_FILE = "run.json"  # written first
CARD_FILE = "selection.json"  # what is in the chosen examples
EXPLORER_FILE = "explorer.html"  # what explore.py writes; a report in the same folder links to it


# Arguments that do not change what a run computes: an interrupted run may be continued with other values.
FREE_ARGUMENTS = frozenset(
    "output_dir overwrite_output_dir overwrite_cache cache_dir data_dir train_file validation_file test_file dataset_name "
    "challenge selection logging_steps save_steps save_total_limit logging_strategy logging_first_step report_to run_name "
    "project logging_dir disable_tqdm dry_run tokens_per_micro_batch".split()
)


# Facts that decide what a run computes, though no argument names them. A run.json of an earlier version may lack them.
MACHINE_FACTS = ("number of processes", "precision")


# What a run leaves in its folder, besides run.json and results.json: this goes when the run is overwritten.
OWNED_FILES = (
    "log.jsonl", "eval_log.json", "bias.npz", "dynamics.npz", "data_map.png", "data_map.pdf", "selection.npz", CARD_FILE, "predictions_*.tsv",
    "eval_results_*.txt",
)  # fmt: skip
OWNED_FOLDERS = ("checkpoints", "dynamics", ".saving", "tensorboard", "wandb")
# A saved model with its tokenizer, as `save_pretrained` of transformers names the files.
MODEL_FILES = (
    "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
)  # fmt: skip


class RunDirectory:
    """`--output_dir` of one run: `run.json` first, `results.json` last.

    A finished directory is refused, an unfinished one of the same arguments is continued, one of other arguments is
    refused; `overwrite` starts afresh. model: the checkpoint that the run starts from. writes_model: whether the run
    saves one; a folder that holds a model of somebody else is then refused. Construction changes nothing on disk;
    `begin` does.
    """

    def __init__(
        self,
        path,
        *,
        script: str,
        arguments: dict,
        overwrite: bool = False,
        main_process: bool = True,
        model: str | None = None,
        writes_model: bool = False,
    ):
        self.path = Path(path)
        self.script = script
        self.arguments = arguments
        self.overwrite = overwrite
        self.main_process = main_process
        if (self.path / RESULTS_FILE).exists() and not overwrite:
            raise InputError(
                f"--output_dir {path} holds a finished run ({RESULTS_FILE} exists); give another folder, or "
                "--overwrite_output_dir to replace it"
            )
        self._ours = any((self.path / name).exists() for name in (RUN_FILE, RESULTS_FILE))
        self._check_models(model, writes_model)
        self.resuming = (self.path / RUN_FILE).exists() and not overwrite
        if self.resuming:
            self._check_same_run()

    def _check_models(self, model: str | None, writes_model: bool) -> None:
        """Refuse a folder in which the run would destroy a model: the one it starts from, or one that is not ours."""
        held = [name for name in MODEL_FILES if any(self.path.glob(name))]
        if held and model and Path(model).resolve() == self.path.resolve() and (writes_model or self.overwrite):
            raise InputError(
                f"--output_dir {self.path} is the folder of --model_name_or_path, whose files would be replaced; give "
                "another folder"
            )
        if (self.path / "checkpoints").exists() and not self._ours:
            raise InputError(
                f"--output_dir {self.path} holds checkpoints but no {RUN_FILE} that says of which run; remove the folder "
                "checkpoints, or give another folder"
            )
        if held and writes_model and not self._ours:
            raise InputError(
                f"--output_dir {self.path} holds a model that no run of ours wrote ({held[0]}); give another folder"
            )

    def _check_same_run(self):
        before = read_json(self.path / RUN_FILE)
        if before.get("script") != self.script:
            raise InputError(
                f"--output_dir {self.path} holds an unfinished run of {before.get('script')}; give another folder, or "
                "--overwrite_output_dir to replace it"
            )
        old, new = before.get("arguments", {}), json.loads(json.dumps(self.arguments, default=to_json))
        free = set(FREE_ARGUMENTS)
        if new.get("eval_strategy") == "steps" and not new.get("eval_steps"):
            free.remove("logging_steps")  # they say when to evaluate
        changed = [
            f"--{name} was {old.get(name)!r}, now {new.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if name not in free and old.get(name) != new.get(name)
        ]
        if changed:
            raise InputError(
                f"--output_dir {self.path} holds an unfinished run with other arguments ({'; '.join(changed)}); repeat "
                "them to continue it, give another folder, or --overwrite_output_dir to replace it"
            )

    def begin(self, *, predictions=(), **facts) -> None:
        """Create the folder and write `run.json` with `facts` (what data, what selection, the MACHINE_FACTS); a continued
        run must have the same ones. With `overwrite`, remove what an earlier run of ours left there. predictions: names of the
        files with answers to test sets."""
        facts = json.loads(json.dumps(facts, default=to_json))
        if self.resuming:
            before = read_json(self.path / RUN_FILE)
            for name, value in facts.items():
                machine = name in MACHINE_FACTS
                if before.get(name, value if machine else None) != value:
                    raise InputError(
                        f"--output_dir {self.path} holds an unfinished run {'with another' if machine else 'on other'} "
                        f"{name} ({before.get(name)}, now {value}); {'continue it as it began, ' if machine else ''}give "
                        "another folder, or --overwrite_output_dir to replace it"
                    )
        if not self.main_process:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if self.overwrite and self._ours:
            self._remove_old_run(predictions)
        if not self.resuming:
            write_json(
                self.path / RUN_FILE,
                {"script": self.script, "arguments": self.arguments, "versions": versions(), **facts},
            )

    def _remove_old_run(self, predictions) -> None:
        """Remove what the run before this one owned, and the results of challenge sets that name its checkpoint.

        results.json goes first, run.json last: a crash in between leaves a folder that does not look finished, and that
        the same command still takes for its own.
        """
        (self.path / RESULTS_FILE).unlink(missing_ok=True)
        for record in self.path.glob("*/*_results.json"):
            self._remove_challenge_results(record)
        for pattern in (*OWNED_FILES, *MODEL_FILES, *predictions):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        for name in OWNED_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def _remove_challenge_results(self, record: Path) -> None:
        """Remove a challenge set's results, if they say that they are those of the checkpoint in this folder."""
        try:
            results = read_json(record)
            if Path(results["model"]).resolve() != self.path.resolve():
                return
            files = [record.with_name(Path(name).name) for name in results.get("files", ())]
        except (InputError, KeyError, TypeError):  # somebody else's file
            return
        for path in (*files, record):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds other files too
            record.parent.rmdir()

    def finish(self, results: dict) -> None:
        """Write `results.json`: from here on the run counts as done."""
        if self.main_process:
            write_json(self.path / RESULTS_FILE, results)


def versions() -> dict:
    """Versions of Python, of the libraries that decide a result, and of this code (git commit where known)."""
    from importlib import metadata

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "scikit-learn", "scipy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    found["code"] = code_version()
    return found


def code_version() -> str | None:
    """The git commit of this code, with `+` where the working tree differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        git = ["git", "-C", str(root)]
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        if top.returncode or Path(top.stdout.strip()).resolve() != root:
            return None
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10
        )
        return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None
