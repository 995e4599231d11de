"""The whole story offline, from nothing to a report: `make demo`.

  python -m demo.run --output_dir out/demo

Every stage is one of the project's own scripts, run as a user would run it and joined to the next only by files; the
commands are printed, so that each can be repeated alone. Finished stages are skipped, so an interrupted demo goes on
where it was.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from utils.command_line import ArgumentParser, parse_args
from utils.errors import RunFailed, run_script

ROOT = Path(__file__).resolve().parent.parent
MODEL = "demo/albert-tiny"
MAX_LENGTH = 64
STRATEGIES = ("random", "diverse", "ambiguous", "counter_heuristic")
SHARE = 0.1
SEEDS = (0, 1, 2)


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


def recipe(data: Path) -> list:
    """The flags that every training of the demo shares."""
    return [
        "--config_name", MODEL, "--tokenizer_name", MODEL, "--task_name", "MNLI", "--data_dir", data,
        "--max_seq_length", MAX_LENGTH, "--per_device_train_batch_size", 32, "--learning_rate", "1e-3",
        "--warmup_ratio", "0.1", "--logging_steps", 200,
    ]  # fmt: skip


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="demo.run")
    parser.add_argument("--output_dir", default="out/demo", help="folder for everything the demo makes")
    args = parse_args(parser, argv)
    out = Path(args.output_dir).resolve()
    started = time.perf_counter()
    data, challenge, full = out / "corpus", out / "challenge", out / "all"
    stage(
        "a synthetic NLI corpus with a shortcut in it",
        "-m", "demo.generate", "--output_dir", data, "--num_train", 12_000, done=data / "train.tsv",
    )  # fmt: skip
    stage(
        "a challenge set in which the shortcut fails",
        "-m", "hans.generate", "--output_dir", challenge, "--per_subcase", 100,
        done=challenge / "heuristics_evaluation_set.txt",
    )  # fmt: skip
    stage(
        "fine-tune a tiny ALBERT on all of it, recording the training dynamics",
        "run_glue.py", *recipe(data), "--do_train", "--do_eval", "--num_train_epochs", 3, "--record_dynamics",
        "--output_dir", full, done=full / "results.json",
    )  # fmt: skip
    stage(
        "did it learn the task or the shortcut?",
        "test_hans.py", "--model_name_or_path", full, "--data_dir", challenge, "--max_seq_length", MAX_LENGTH,
        "--output_dir", full / "hans", done=full / "hans" / "hans_results.json",
    )  # fmt: skip
    stage(
        "[CLS] embeddings of the training examples",
        "get_embeddings.py", "--model_name_or_path", full, "--task_name", "MNLI", "--data_dir", data,
        "--max_seq_length", MAX_LENGTH, "--output_dir", out / "embeddings",
        done=out / "embeddings" / "cls_embeddings_mnli_train.json",
    )  # fmt: skip
    stage(
        "clusters of them, and what is in each",
        "cluster_embeddings.py", "--embedding_path", out / "embeddings", "--data_dir", data,
        "--num_clusters", 8, 32, "--output_dir", out / "clusters", done=out / "clusters" / "clusters.json",
    )  # fmt: skip
    # Equal steps, so that only the choice differs; the tenth is trained for as many as one epoch on everything takes.
    stage(
        f"{100 * SHARE:.0f} % of the data, chosen in {len(STRATEGIES)} ways, {len(SEEDS)} seeds each",
        "sweep.py", *recipe(data), "--strategies", *STRATEGIES, "--data_pcts", SHARE, 1.0, "--seeds", *SEEDS,
        "--budget", "steps", "--num_train_epochs", 1, "--hans_dir", challenge, "--hans_per_subcase", 30,
        "--embedding_path", out / "embeddings", "--cluster_path", out / "clusters" / "clusters.npz",
        "--dynamics_path", full / "dynamics.npz", "--jobs", 2, "--output_dir", out / "sweep",
        done=out / "sweep" / "report" / "report.html",
    )  # fmt: skip
    report = out / "sweep" / "report"
    print(f"\n{time.perf_counter() - started:.0f} s; the report to open: {report / 'report.html'}")
    print(f"the examples, to look at: {report / 'explorer.html'}")


if __name__ == "__main__":
    run_script(main)
