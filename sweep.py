#!/usr/bin/env python3
"""Train on every share of the data, chosen in every way, with every seed; evaluate each on the dev sets and on HANS.

  python sweep.py --strategies random diverse ambiguous --data_pcts 0.1 0.3 1.0 --seeds 0 1 2 --hans_dir $DATA/hans \\
    --model_name_or_path albert-base-v1 --task_name MNLI --data_dir $GLUE_DIR/MNLI --output_dir $OUT/sweep --fp16

Every other flag is run_glue.py's and goes to every run. What strategies need (training dynamics, embeddings, clusters) is
made once, in <output_dir>/selector/; the runs are in <output_dir>/runs/, each in a process of its own, one at a time per
GPU or --jobs on a CPU. Repeating the command goes on where it stopped, skips what is finished and adds what is new. The
report (report.py) is made at the end.

A run's seed is its selection seed too, so the spread over seeds holds both the luck of the draw and that of training (not
that of the proxy run and the clusters, which are made once, with the smallest seed).
At 100 % all ways of choosing are one: the run `all`. Besides the strategies of select_examples.py --list there are
grad_norm, infobatch and rs2 (importance_sampling_mnli.py --online): grad_norm takes the share as its share of the steps,
infobatch decides on its own how much it skips and runs at 100 % only. `forgettable` is a second fine-tuning, of the run
`all` of the same seed.
"""

import subprocess
import sys
from pathlib import Path

from utils.command_line import ArgumentParser, command_line, data_fraction, non_negative_int, positive_int
from utils.errors import RunFailed, run_script
from utils.flags import add_data_args, add_model_args, add_training_args
from utils.selection.ingredients import add_selector_args


def add_sweep_args(parser) -> None:
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--strategies", nargs="+", required=True, metavar="NAME", help="ways of choosing, random among them"
    )
    group.add_argument(
        "--data_pcts", nargs="+", type=data_fraction, required=True, metavar="FRACTION", help="0.1 = 10 %%"
    )
    group.add_argument(
        "--seeds", nargs="+", type=non_negative_int, default=[0, 1, 2], help="one run of everything each"
    )
    group.add_argument("--hans_dir", help="HANS evaluation set, a folder or file, or `hub`; not given: no HANS columns")
    group.add_argument("--hans_per_subcase", type=positive_int, help="evaluate on so many pairs of each HANS subcase")
    group.add_argument(
        "--budget", choices=("epochs", "steps"), default="epochs",
        help="what all shares have alike: epochs, or the optimizer steps of a run on everything",
    )  # fmt: skip
    group.add_argument(
        "--pool_size", type=positive_int, help="a seeded sample of so many training examples stands for 100 %%"
    )
    for kind in ("embedding", "cluster", "dynamics", "logits"):
        group.add_argument(f"--{kind}_path", metavar="FILE", help="made already: not made again")
    group.add_argument("--jobs", type=positive_int, help="runs at a time (default: the number of GPUs, 1 on a CPU)")
    group.add_argument("--shard", type=shard, metavar="I/K", help="do the I-th of K parts, for job arrays")
    group.add_argument("--list", action="store_true", help="print the commands of every run and stop")
    group.add_argument(
        "--keep_models", action="store_true", help="keep every model.safetensors, not only those of `all`"
    )
    # Flags of run_glue.py that the sweep decides for each run.
    group.add_argument("--output_dir", required=True, help="everything goes there")
    group.add_argument("--task_name", default="MNLI", help="a GLUE task in any letter case")
    group.add_argument("--data_dir", help="folder with the task's TSV files (default: nyu-mll/glue from the hub)")


def shard(text: str) -> tuple[int, int]:
    i, _, k = text.partition("/")
    if not (i.isdigit() and k.isdigit() and 1 <= int(i) <= int(k)):
        raise ValueError
    return int(i), int(k)


def main(argv=None) -> None:
    whole = ArgumentParser(description=__doc__, conflict_handler="resolve")
    for add in (add_model_args, lambda p: add_data_args(p, default_task="MNLI"), add_training_args, add_sweep_args):
        add(whole)
    add_selector_args(whole)
    words = command_line(whole, argv)
    args = whole.parse_args(words)
    decided = [name for name in ("seed", "selection_seed", "selection", "max_steps", "max_train_samples", "dry_run",
                                 "record_dynamics", "do_predict", "overwrite_output_dir")
               if getattr(args, name) != whole.get_default(name)]  # fmt: skip
    if decided:
        whole.error(f"--{decided[0]} is not for a sweep, which decides it for each run")
    own = ArgumentParser(add_help=False)
    add_sweep_args(own)
    add_selector_args(own)
    _, forwarded = own.parse_known_args(words)
    forwarded = [word for word in forwarded if word not in ("--do_train", "--do_eval")]

    from utils.command_line import setup_logging
    from utils.sweep.plan import Sweep

    setup_logging()
    sweep = Sweep(args, forwarded)
    jobs = sweep.jobs()
    if args.list:
        for job in jobs:
            print(f"# {job.name}{' (finished)' if job.done else ''}")
            for command in job.commands:
                print(command)
        return
    failed = sweep.run(jobs)
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    if args.shard is None or sweep.finished:
        status = subprocess.run([sys.executable, Path(__file__).with_name("report.py"), args.output_dir]).returncode
        if status:
            raise RunFailed(f"report.py ended with status {status}; its own message is above")
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(jobs)} runs failed and are named above; repeat the command to try again"
        )


if __name__ == "__main__":
    run_script(main)
