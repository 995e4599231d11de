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

from utils.command_line import ArgumentParser, parse_args
from utils.errors import InputError, RunFailed, run_script
from utils.flags import RunSettings, add_flags, settings_from, words_of
from utils.selection.choosing import InputFiles, add_plugin_flag, load_plugins
from utils.selection.ingredients import MakerSettings
from utils.settings import add_no_ops
from utils.sweep.plan import DECIDED, Sweep, SweepSettings

OWN = ("output_dir", "data_dir")  # of DECIDED, what the sweep itself is told


def shard(text: str) -> tuple[int, int]:
    i, _, k = text.partition("/")
    if not (i.isdigit() and k.isdigit() and 1 <= int(i) <= int(k)):
        raise ValueError
    return int(i), int(k)


def main(argv=None) -> None:
    load_plugins(argv)
    parser = ArgumentParser(description=__doc__)
    add_flags(parser, SweepSettings, required=("strategies", "data_pcts"))
    parser.add_argument("--shard", type=shard, metavar="I/K", help="do the I-th of K parts, for job arrays")
    parser.add_argument("--list", action="store_true", help="print the commands of every run and stop")
    add_plugin_flag(parser)
    add_flags(parser, InputFiles)
    add_flags(parser, MakerSettings)
    add_flags(parser, RunSettings, required=("output_dir",), fold=True, task_name="MNLI")
    add_no_ops(parser)
    args = parse_args(parser, argv)
    decided = [name for name in DECIDED if name not in (*OWN, "do_train", "do_eval")]
    for name in decided:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} is not for a sweep, which decides it for each run")

    from utils.command_line import setup_logging

    setup_logging()
    sweep = make_sweep(args)
    jobs = sweep.jobs(args.shard)
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
        status = subprocess.run(
            [sys.executable, Path(__file__).with_name("report.py"), args.output_dir, "--brief"]
        ).returncode
        if status:
            raise RunFailed(f"report.py ended with status {status}; its own message is above")
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(jobs)} runs failed and are named above; repeat the command to try again"
        )


def make_sweep(args) -> Sweep:
    """The sweep that the flags describe. Raises InputError where it cannot be done, or the folder holds another one."""
    from hans.challenge import hans_run
    from utils.flags import DeviceSettings, TrackerSettings

    settings, run = settings_from(SweepSettings, args), settings_from(RunSettings, args)
    if settings.hans_per_subcase and not settings.hans_dir:
        raise InputError("--hans_per_subcase needs --hans_dir")
    challenges = ()
    if settings.hans_dir:
        hans = hans_run(
            settings.hans_dir,
            per_subcase=settings.hans_per_subcase,
            max_seq_length=run.max_seq_length,
            cache_dir=run.cache_dir,
            device_flags=words_of(run, DeviceSettings, TrackerSettings, leave_out=("per_device_eval_batch_size",)),
        )
        challenges = (hans,)
    files, making = settings_from(InputFiles, args), settings_from(MakerSettings, args)
    return Sweep(settings, run, files, making, challenges=challenges, plugin=args.plugin)


if __name__ == "__main__":
    run_script(main)
