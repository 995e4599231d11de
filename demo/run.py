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


# How the demo's tenth of the data is chosen, and what select_examples.py needs to be told for it.
STRATEGIES = {
    "random": [],
    "diverse": ["--cluster_path", "clusters/clusters.npz"],
    "ambiguous": ["--dynamics_path", "all/dynamics.npz"],
    "forgetting": ["--dynamics_path", "all/dynamics.npz"],
    "counter_heuristic": [],
}
SHARE = 0.1
STEPS = 300  # of every training on a tenth: equal steps, so that only the choice differs


def training(data: Path, out: Path, *more) -> list:
    """A run_glue.py command line of the demo's model on `data`."""
    return [
        "run_glue.py", "--config_name", MODEL, "--tokenizer_name", MODEL, "--task_name", "MNLI", "--data_dir", data,
        "--do_train", "--do_eval", "--max_seq_length", "64", "--per_device_train_batch_size", "32",
        "--learning_rate", "1e-3", "--warmup_ratio", "0.1", "--logging_steps", "200", "--output_dir", out, *more,
    ]  # fmt: skip


def hans(checkpoint: Path, challenge: Path) -> None:
    out = checkpoint / "hans"
    stage(
        f"HANS for {checkpoint.name}",
        "test_hans.py", "--model_name_or_path", checkpoint, "--data_dir", challenge, "--max_seq_length", "64",
        "--output_dir", out, "--quiet",
        done=out / "hans_results.json",
    )  # fmt: skip


def row(checkpoint: Path) -> str:
    """One line of the final table."""
    results = json.loads((checkpoint / "results.json").read_text())
    challenge = json.loads((checkpoint / "hans" / "hans_results.json").read_text())["by_heuristic"]
    accuracy = [f"{100 * results['eval'][split]['eval_acc']:.2f}" for split in ("dev_matched", "dev_mismatched")]
    cells = [[f"{cell[label]:.3f}" for cell in challenge.values()] for label in ("entailment", "non-entailment")]
    m, counters = results["selection"]["m"], counter_examples(checkpoint)
    return f"{checkpoint.name:<18}{m:>6}{counters:>9}  {' / '.join(accuracy):<15}  {', '.join(cells[0])}   {', '.join(cells[1])}"


def counter_examples(checkpoint: Path) -> int:
    """How many of the corpus's counter-examples the run was trained on."""
    from demo.generate import COUNTER_GENRE
    from utils.glue import load_split
    from utils.selection import Selection
    from utils.tasks import get_task

    examples = load_split(get_task("mnli"), "train", data_dir=checkpoint.parent / "corpus")
    path = checkpoint / "selection.npz"
    rows = Selection.load(path).indices.tolist() if path.exists() else range(len(examples))
    return sum(examples.genres[i] == COUNTER_GENRE for i in rows)


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
        *training(data, full, "--num_train_epochs", 3, "--record_dynamics"), done=full / "results.json",
    )  # fmt: skip
    hans(full, challenge)
    stage(
        "[CLS] embeddings of the training examples",
        "get_embeddings.py", "--model_name_or_path", full, "--task_name", "MNLI", "--data_dir", data,
        "--max_seq_length", 64, "--output_dir", out / "embeddings",
        done=out / "embeddings" / "cls_embeddings_mnli_train.json",
    )  # fmt: skip
    stage(
        "clusters of them, and what is in each",
        "cluster_embeddings.py", "--embedding_path", out / "embeddings", "--data_dir", data,
        "--num_clusters", 8, 32, "--output_dir", out / "clusters", done=out / "clusters" / "clusters.npz",
    )  # fmt: skip
    for name, inputs in STRATEGIES.items():
        inputs = [word if word.startswith("--") else out / word for word in inputs]
        stage(
            f"choose {100 * SHARE:.0f} % of the examples: {name}",
            "select_examples.py", "--strategy", name, "--data_dir", data, "--data_pct", SHARE, *inputs,
            "--output_dir", out / "selections" / name, done=out / "selections" / name / "selection.npz",
        )  # fmt: skip
        stage(
            f"train on them: {name}",
            *training(data, out / name, "--max_steps", STEPS, "--selection", out / "selections" / name / "selection.npz"),
            done=out / name / "results.json",
        )  # fmt: skip
        hans(out / name, challenge)

    print(
        f"\n{'training data':<18}{'m':>6}{'counter':>9}  {'mnli / mnli-mm':<15}  HANS entailed         HANS non-entailed"
    )
    print(f"{'':<18}{'':>6}{'examples':>9}  {'eval_acc':<15}  (lexical overlap, subsequence, constituent)")
    for name in ("all", *STRATEGIES):
        print(row(out / name))
    print("majority class                     33.40 / 33.40")
    print(f"\n{time.perf_counter() - started:.0f} s; everything is in {out}")


if __name__ == "__main__":
    run_script(main)
