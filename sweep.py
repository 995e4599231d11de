#!/usr/bin/env python3
"""Train on every share of the data, chosen in every way, with every seed; evaluate each on the dev sets and on HANS.

  python sweep.py --strategies random diverse ambiguous --data_pcts 0.1 0.3 1.0 --seeds 0 1 2 --hans_dir $DATA/hans \\
    --model_name_or_path albert-base-v1 --task_name MNLI --data_dir $GLUE_DIR/MNLI --output_dir $OUT/sweep --fp16

Most other flags are run_glue.py's and go to every run; those that a sweep decides itself (--seed, --max_steps, --selection and
others) are refused. What strategies need (training dynamics, embeddings, clusters) is made once, in <output_dir>/selector/;
the runs are in <output_dir>/runs/, each in a process of its own, one at a time per GPU or --jobs on a CPU. Repeating the
command goes on where it stopped, skips what is finished and adds what is new. The report (report.py) is made at the end, and
with it a page to look at the examples (explore.py).

A run's seed is its selection seed too, so the spread over seeds holds both the luck of the draw and that of training (not
that of the proxy run and the clusters, which are made once, with the smallest seed that the sweep begins with).
At 100 % all ways of choosing are one: the run `all`. Besides the strategies of select_examples.py --list there are
grad_norm, rho, infobatch and rs2 (importance_sampling_mnli.py --online): grad_norm and rho take the share as their share of
the steps, infobatch decides on its own how much it skips and runs at 100 % only. poe, learned_mixin, conf_reg and group_dro
(run_glue.py --objective) train on everything or on a random share, dfr goes on from the run on everything; hard+poe is a
strategy and an objective (docs/objectives.md). `forgettable` is a second fine-tuning: it goes on from the
run `all` of the same seed.

--executor slurm does the runs as jobs of a cluster (docs/cluster.md). --looks 5 10 20 stops early: after 5 and 10 seeds each,
only strategies that are not yet shown to be above, below or within --smallest points of random get more (docs/stopping.md).
"""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from utils.command_line import ArgumentParser, command_line, parse_args, setup_logging, shard
from utils.errors import InputError, RunFailed, run_script
from utils.flags import DeviceSettings, RunSettings, TrackerSettings, name_data
from utils.selection.choosing import InputFiles, add_plugin_flag, load_plugins
from utils.selection.ingredients import MakerSettings
from utils.settings import add_flags, add_no_ops, settings_from, words_of
from utils.sweep.jobs import Job
from utils.sweep.looks import runs_so_far
from utils.sweep.plan import DECIDED, Sweep, SweepSettings
from utils.sweep.slurm import SlurmSettings, SlurmSweep


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    load_plugins(parser, argv)
    add_flags(parser, SweepSettings, required=("strategies", "data_pcts"))
    parser.add_argument("--shard", type=shard, metavar="I/K", help="do the I-th of K parts, for job arrays")
    parser.add_argument(
        "--inputs_only", action="store_true", help="make what the strategies need, in this process, and no run"
    )
    parser.add_argument("--list", action="store_true", help="print the commands of every run and stop")
    add_plugin_flag(parser)
    add_flags(parser, SlurmSettings)
    add_flags(parser, InputFiles)
    add_flags(parser, MakerSettings)
    add_flags(parser, RunSettings, required=("output_dir",), fold=True)
    add_no_ops(parser)
    args = parse_args(parser, argv)
    name_data(args, "MNLI")
    decided = [name for name in DECIDED if name not in ("output_dir", "do_train", "do_eval")]
    for name in decided:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} is not for a sweep, which decides it for each run")
    if args.looks and args.seeds != parser.get_default("seeds"):
        parser.error(f"--looks {args.looks[-1]} uses the seeds 0 to {args.looks[-1] - 1}; leave out --seeds")

    setup_logging()
    sweep = make_sweep(args)
    if args.list:
        list_jobs(next(looks(sweep, args)))
        return
    do = functools.partial(sweep.run, inputs_only=args.inputs_only)
    slurm = settings_from(SlurmSettings, args)
    if slurm.executor == "slurm" and not args.inputs_only:
        do = functools.partial(
            SlurmSweep(sweep.out, slurm, command_line(parser, argv)).run, write_plan=sweep.write_plan
        )
    for jobs in looks(sweep, args):
        failed = do(jobs)
        if args.inputs_only:
            return
        if failed:
            break
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    if args.shard is None or sweep.finished:
        explorer = Path(__file__).with_name("explore.py")
        if subprocess.run([sys.executable, explorer, *sweep.explorer_words()]).returncode:
            print("note: the report has no explorer; why is said above")
        status = subprocess.run(
            [sys.executable, Path(__file__).with_name("report.py"), args.output_dir, "--brief"]
        ).returncode
        if status:
            raise RunFailed(f"report.py ended with status {status}; its own message is above")
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(jobs)} runs failed and are named above; repeat the command to try again"
        )


def looks(sweep: Sweep, args) -> Iterator[list[Job]]:
    """The jobs of each look until all arms are decided; all jobs at once without --looks."""
    if not args.looks:
        yield sweep.jobs(args.shard)
        return
    every_run, asked_for = sweep.runs, None
    while True:
        sweep.runs = runs_so_far(
            every_run, args.looks, finished=lambda run: sweep.job(run).done, verdicts=lambda: verdicts(sweep.out)
        )
        if sweep.runs == asked_for:
            return
        asked_for = sweep.runs
        yield sweep.jobs(args.shard)


def list_jobs(jobs) -> None:
    for job in jobs:
        print(f"# {job.name}{' (finished)' if job.done else ''}")
        for command in job.commands:
            print(command)


def verdicts(out: Path) -> dict[str, list[str]]:
    """{run: what each look so far says of its arm}."""
    from utils.report.looks import looks_at
    from utils.report.run_folders import load_runs

    runs = load_runs(out)
    found = looks_at(runs.results, runs.looks, runs.dev)
    return {r.name: [look.verdict for look in found[r.arm]] for r in runs.results if r.arm in found}


def make_sweep(args) -> Sweep:
    """The sweep that the flags describe. Raises InputError where it cannot be done, or the folder holds another one."""
    from hans.challenge import hans_run

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
            trust_remote_code=run.trust_remote_code,
            device_flags=words_of(run, DeviceSettings, TrackerSettings, leave_out=("per_device_eval_batch_size",)),
        )
        challenges = (hans,)
    files, making = settings_from(InputFiles, args), settings_from(MakerSettings, args)
    return Sweep(settings, run, files, making, challenges=challenges, plugin=args.plugin)


if __name__ == "__main__":
    run_script(main)
