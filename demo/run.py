"""The whole story offline, from nothing to a table: `make demo`.

  python -m demo.run --output_dir out/demo

Every stage is one of the project's own scripts, run as a user would run it and joined to the next only by files; the
commands are printed, so that each can be repeated alone. Finished stages are skipped, so an interrupted demo goes on
where it was.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from utils.runs import ArgumentParser, RunFailed, parse_args, run_script

ROOT = Path(__file__).resolve().parent.parent
MODEL = "demo/albert-tiny"


def stage(title: str, *command, done: Path) -> None:
    """Run `python <command>` from the project's root unless `done` exists. Raises RunFailed where it fails."""
    print(f"\n== {title}", flush=True)
    if done.exists():
        print(f"already there: {done}", flush=True)
        return
    words = [str(word) for word in command]
    print(f"$ python {shlex.join(words)}", flush=True)
    started = time.perf_counter()
    status = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if status:
        raise RunFailed(f"the stage {title!r} ended with status {status}; its own message is above")
    print(f"({time.perf_counter() - started:.0f} s)", flush=True)


def training_flags(data: Path, out: Path, epochs: float) -> list:
    return [
        "--task_name", "MNLI", "--data_dir", data, "--do_train", "--do_eval", "--max_seq_length", "64",
        "--per_device_train_batch_size", "32", "--learning_rate", "1e-3", "--warmup_ratio", "0.1",
        "--num_train_epochs", epochs, "--logging_steps", "200", "--output_dir", out,
    ]  # fmt: skip


def accuracies(folder: Path) -> tuple[float, float]:
    evaluated = json.loads((folder / "results.json").read_text())["eval"]
    return evaluated["dev_matched"]["eval_acc"], evaluated["dev_mismatched"]["eval_acc"]


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="demo.run")
    parser.add_argument("--output_dir", default="out/demo", help="folder for everything the demo makes")
    args = parse_args(parser, argv)
    out = Path(args.output_dir).resolve()
    data, full = out / "corpus", out / "all_data"
    fresh = ["--config_name", MODEL, "--tokenizer_name", MODEL]
    stage("a synthetic NLI corpus", "-m", "demo.generate", "--output_dir", data, done=data / "train.tsv")
    stage(
        "fine-tune a tiny ALBERT on all of it",
        "run_glue.py", *fresh, *training_flags(data, full, 2.0),
        done=full / "results.json",
    )  # fmt: skip
    matched, mismatched = accuracies(full)
    print("\ntraining data   mnli eval_acc   mnli-mm eval_acc")
    print(f"all             {100 * matched:13.2f}   {100 * mismatched:16.2f}")
    print("majority class          33.40              33.40")
    print(f"\neverything is in {out}")


if __name__ == "__main__":
    run_script(main)
