"""sweep.py: the grid, sharing, shards, a kill at any moment, a failing run, Ctrl-C."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import transformers

import sweep as script
from hans.generate import main as generate_hans
from tests import tiny
from utils.data.sources import open_data
from utils.errors import EXIT_INTERRUPTED, InputError
from utils.flags import RunSettings
from utils.selection.choosing import InputFiles
from utils.selection.ingredients import MakerSettings
from utils.sweep import jobs
from utils.sweep.grid import Run, grid
from utils.sweep.plan import SweepSettings
from utils.sweep.pool import make_pool


# ---------------------------------------------------------------------------------------------------------------- jobs
def test_what_a_run_starts_has_the_threads_of_the_run(tmp_path, monkeypatch):
    """A teacher or a proxy run is a process of its own; with all threads in each, runs side by side wait for one another."""
    monkeypatch.setattr(jobs, "run_job", lambda job: (job.folder / "threads").write_text(os.environ["OMP_NUM_THREADS"]))
    alive, _end = multiprocessing.get_context("fork").Pipe(duplex=False)
    job = jobs.Job("run", tmp_path / "run", (), 1.0)
    child = multiprocessing.get_context("fork").Process(target=jobs._child, args=(job, None, 3, alive))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and (tmp_path / "run" / "threads").read_text() == "3"


# ---------------------------------------------------------------------------------------------------------------- plan
def test_the_grid_holds_every_combination_once():
    runs = grid(["random", "hard"], [0.1, 0.5], [0, 1], "epochs")
    assert len(runs) == len(set(runs)) == 8
    assert {(run.strategy, run.data_pct, run.seed) for run in runs} == {
        (s, p, k) for s in ("random", "hard") for p in (0.1, 0.5) for k in (0, 1)
    }


def test_at_100_percent_all_ways_are_one_run_but_for_those_that_weight():
    runs = grid(["random", "hard", "bias_reweight", "rs2"], [1.0], [0], "epochs")
    assert [run.strategy for run in runs] == ["all", "bias_reweight"]


def test_infobatch_decides_its_own_share_and_forgettable_needs_everything_first():
    assert [run.data_pct for run in grid(["infobatch"], [0.1, 1.0], [0], "epochs")] == [1.0]
    runs = grid(["forgettable"], [0.1], [0, 1], "epochs")
    assert [(run.strategy, run.seed) for run in runs] == [
        ("all", 0),
        ("all", 1),
        ("forgettable", 0),
        ("forgettable", 1),
    ]


def test_equal_steps_have_names_of_their_own():
    runs = grid(["random"], [0.1], [0], "steps")
    assert runs == [Run("random", 0.1, "steps", 0)] and runs[0].name == "random-10pct-steps-seed0"


def test_a_scheme_without_a_share_of_its_own_is_refused_aloud():
    for name in ("grad_norm", "infobatch"):
        with pytest.raises(InputError, match=f"--budget steps: {name} draws from all of the data"):
            grid(["random", name], [0.1, 1.0], [0], "steps")
    with pytest.raises(InputError, match="infobatch decides itself what it leaves out"):
        grid(["random", "infobatch"], [0.1], [0], "epochs")


def test_two_shares_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"0.3333333 and 0.33333334 are so close"):
        grid(["random"], [0.3333333, 0.33333334], [0], "epochs")


def test_objectives_are_arms_of_their_own():
    runs = grid(["random", "poe", "hard+poe", "jtt", "dfr"], [0.1, 1.0], [0], "epochs")
    found = {(run.strategy, run.data_pct): (run.chosen_by, run.objective) for run in runs}
    assert len(found) == len(runs) and found == {
        ("all", 1.0): ("all", "erm"),
        ("random", 0.1): ("random", "erm"),
        ("poe", 0.1): ("random", "poe"),
        ("poe", 1.0): ("all", "poe"),  # hard+poe at 100 % too
        ("hard+poe", 0.1): ("hard", "poe"),
        ("jtt", 0.1): ("jtt", "erm"),
        ("jtt", 1.0): ("jtt", "erm"),
        ("dfr", 1.0): ("all", "dfr"),
    }
    assert [run.strategy for run in grid(["dfr"], [1.0], [0], "epochs")] == ["all", "dfr"]
    with pytest.raises(InputError, match="dfr goes on from the run on everything and runs at 100 % only"):
        grid(["dfr"], [0.1], [0], "epochs")
    for name in ("hard+magic", "hard+dfr", "hard+erm"):
        with pytest.raises(InputError, match=r"no objective called .*; there are poe, learned_mixin"):
            grid([name], [1.0], [0], "epochs")


def planned(words, plugin=None):
    """The Sweep of these flags."""
    parser = script.ArgumentParser()
    for part in (SweepSettings, InputFiles, MakerSettings, RunSettings):
        script.add_flags(parser, part)
    parser.set_defaults(plugin=plugin)
    return script.make_sweep(parser.parse_args([str(word) for word in words]))


def test_a_run_is_told_what_its_objective_reads_and_no_more(world):
    words = flags(world, world / "planned", "--bias", "hypothesis", "--dro_step_size", "0.1")
    words[words.index("hard")] = "poe"
    words[words.index("random") + 1 : words.index("random") + 1] = ["group_dro", "dfr"]
    sweep = planned(words)
    found = {job.name: " ".join(job.commands[0].flags) for job in sweep.jobs()}
    assert "--objective" not in found["all-100pct-seed0"] and "--bias" not in found["all-100pct-seed0"]
    assert "--objective poe --bias hypothesis" in found["poe-100pct-seed0"] and "dro" not in found["poe-100pct-seed0"]
    assert (
        "--objective group_dro --dro_step_size 0.1 --strategy random --data_pct 0.2" in found["group_dro-20pct-seed1"]
    )
    assert f"--model_name_or_path {world}/planned/runs/all-100pct-seed1 --dfr" in found["dfr-100pct-seed1"]
    assert sweep._scoring_cost("dfr") == sweep._scoring_cost("poe") == 0  # the run before it counts as training


def test_seeds_that_are_added_leave_the_shared_inputs_as_they_are(world, tmp_path):
    words, found = flags(world, tmp_path), []
    for seeds in (["3", "4"], ["0", "1"], ["5"]):
        sweep = planned([*words, "--seeds", *seeds])
        found.append(sweep._input_seed)
        sweep.write_plan()
    assert found == [3, 3, 3]


def test_another_plugin_in_the_same_folder_is_refused(world, tmp_path):
    plugin, words = tmp_path / "own.py", flags(world, tmp_path / "out")
    planned(words).write_plan()
    plugin.write_text("A = 1\n")
    planned(words, str(plugin)).write_plan()  # it may be added
    planned(words, str(plugin)).write_plan()
    planned(words).write_plan()  # and left out
    plugin.write_text("A = 2\n")
    with pytest.raises(InputError, match="holds a sweep with other plugin"):
        planned(words, str(plugin))


def test_rho_is_told_how_its_irreducible_losses_are_made(world, tmp_path):
    words = flags(world, tmp_path, "--proxy_epochs", "7")
    words[words.index("hard")] = "rho"
    jobs = {job.name: job for job in planned(words).jobs()}
    assert "--proxy_epochs 7" in " ".join(jobs["rho-20pct-seed0"].commands[0].flags)
    assert (
        jobs["rho-20pct-seed0"].folder / "selector" / "half_1" / "model.safetensors" in jobs["rho-20pct-seed0"].remove
    )


def test_equal_steps_of_a_part_of_an_epoch_are_those_of_a_run_on_everything(world, tmp_path):
    words = [*flags(world, tmp_path), "--num_train_epochs", "2.1", "--per_device_train_batch_size", "40"]
    assert planned(words).full_steps == 6  # 3 steps an epoch, as UniformBatches rounds


def test_an_unknown_way_of_choosing_is_refused():
    with pytest.raises(InputError, match="magic"):
        grid(["magic"], [0.1], [0], "epochs")


# ----------------------------------------------------------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus, a challenge set, a model config, and the sweep's flags for them."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=120, n_dev=24)
    tiny.write_config(root / "model", "bert")
    generate_hans(["--output_dir", str(root / "hans"), "--per_subcase", "2"])
    return root


def flags(world, out, *more):
    return [
        "--strategies", "random", "hard", "--data_pcts", "0.2", "1.0", "--seeds", "0", "1", "--hans_dir", world / "hans",
        "--config_name", world / "model", "--tokenizer_name", world / "model", "--task_name", "MNLI", "--data_dir",
        world / "data", "--max_seq_length", "32", "--per_device_train_batch_size", "8", "--num_train_epochs", "8",
        "--learning_rate", "1e-3", "--proxy_epochs", "1", "--use_cpu", "--output_dir", out, *more,
    ]  # fmt: skip


def start(world, out, *more):
    words = [sys.executable, str(tiny.ROOT / "sweep.py"), *map(str, flags(world, out, *more))]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # In a folder that holds another `hans`, as a folder of data sets does.
    return subprocess.Popen(words, **pipes, env=environment, start_new_session=True, cwd=world)


def finish(process, status=0) -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == status, printed
    return printed


@pytest.fixture(scope="module")
def done(world):
    """The uninterrupted sweep and what it printed."""
    out = world / "uninterrupted"
    return out, finish(start(world, out))


def names(out) -> set[str]:
    return {path.parent.name for path in (out / "runs").glob("*/results.json")}


PLANNED = {f"{way}-seed{k}" for way in ("random-20pct", "hard-20pct", "all-100pct") for k in (0, 1)}


def test_every_run_is_there_with_hans_and_a_report(done):
    out, printed = done
    assert printed.startswith("6 runs, 0 of them finished")
    assert names(out) == PLANNED
    assert all((out / "runs" / name / "hans" / "hans_results.json").exists() for name in PLANNED)
    assert 'href="explorer.html"' in (out / "report" / "report.html").read_text()
    explorer = (out / "report" / "explorer.html").read_text()
    assert "Data map" in explorer and "random-20pct-seed0</th>" in explorer and "hard-20pct-seed0</th>" in explorer
    assert "## At a glance" in printed and "all | epochs" not in printed
    # Scored once, for all seeds; models are kept where a later run may start from them.
    assert [path.name for path in (out / "selector").iterdir() if path.is_dir()] == ["proxy_run"]
    kept = {path.parent.name for path in (out / "runs").glob("*/model.safetensors")}
    assert kept == {"all-100pct-seed0", "all-100pct-seed1"}


def test_a_run_is_what_its_printed_command_gives(done, world, tmp_path, capsys):
    out, _ = done
    script.main([str(word) for word in flags(world, out, "--list")])
    lines = capsys.readouterr().out.splitlines()
    command = lines[lines.index("# hard-20pct-seed1 (finished)") + 1]
    words = command.split()[2:]
    words[words.index("--output_dir") + 1] = str(tmp_path / "alone")
    tiny.run_script("importance_sampling_mnli.py", *words)
    alone, there = (
        json.loads((path / "results.json").read_text())
        for path in (tmp_path / "alone", out / "runs" / "hard-20pct-seed1")
    )
    assert alone["eval"] == there["eval"] and alone["selection"]["m"] == 24


def test_a_finished_sweep_does_nothing_again(done, world):
    out, _ = done
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("results.json")}
    printed = finish(start(world, out))
    assert "6 of them finished" in printed
    assert before == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("results.json")}


def test_killed_at_any_moment_and_repeated_it_ends_the_same(done, world):
    out, moments = world / "killed", random.Random(0)
    finished_before: dict[str, int] = {}
    for _ in range(5):
        process = start(world, out)
        time.sleep(moments.uniform(2, 9))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for name, stamp in finished_before.items():
            assert (out / "runs" / name / "results.json").stat().st_mtime_ns == stamp, f"{name} was done twice"
        finished_before = {name: (out / "runs" / name / "results.json").stat().st_mtime_ns for name in names(out)}
    finish(start(world, out))
    for name, stamp in finished_before.items():
        assert (out / "runs" / name / "results.json").stat().st_mtime_ns == stamp, f"{name} was done twice"
    assert names(out) == PLANNED
    for path in (done[0] / "report").iterdir():
        if path.name != "timings.csv":
            assert path.read_bytes() == (out / "report" / path.name).read_bytes(), path.name


def test_shards_together_are_the_whole(done, world, capsys):
    out, _ = done

    def listed(*more):
        script.main([str(word) for word in flags(world, out, "--list", *more)])
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]

    parts = [listed("--shard", f"{i}/4") for i in range(1, 5)]
    assert sorted(line for part in parts for line in part) == sorted(listed()) and all(parts)
    with pytest.raises(SystemExit):
        listed("--shard", "5/4")


def test_it_carries_on_after_a_failed_run_and_lists_it(world):
    out = world / "failing"
    broken = out / "runs" / "hard-20pct-seed0"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{")  # as a full disk may leave it
    printed = finish(start(world, out, "--seeds", "0"), status=1)
    assert names(out) == {"random-20pct-seed0", "all-100pct-seed0"}
    assert "failed: hard-20pct-seed0: " in printed and "not readable as JSON" in printed
    (broken / "run.json").unlink()
    finish(start(world, out, "--seeds", "0"))
    assert len(names(out)) == 3


def test_ctrl_c_saves_and_says_how_to_continue(world):
    out = world / "stopped"
    process = start(
        world, out, "--num_train_epochs", "400", "--strategies", "random", "--seeds", "0", "--save_steps", "50"
    )
    log = out / "runs" / "all-100pct-seed0" / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.read_text():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    printed = finish(process, status=EXIT_INTERRUPTED)
    assert "Run the same command again to continue" in printed and "Traceback" not in printed
    assert list((out / "runs" / "all-100pct-seed0" / "checkpoints").iterdir())


def test_a_pool_is_a_seeded_sample_of_the_lines(world, tmp_path, capsys):
    script.main([str(word) for word in flags(world, tmp_path, "--pool_size", "20", "--list")])
    capsys.readouterr()
    whole = (world / "data" / "train.tsv").read_text().splitlines()
    pool = (tmp_path / "pool" / "train.tsv").read_text().splitlines()
    assert pool[0] == whole[0] and len(pool) == 21 and [line for line in whole if line in set(pool)] == pool
    assert (tmp_path / "pool" / "dev_matched.tsv").read_bytes() == (world / "data" / "dev_matched.tsv").read_bytes()


@pytest.mark.parametrize("own_files", [False, True])
def test_a_pool_of_other_data_or_size_is_refused(tmp_path, own_files):
    tiny.write_mnli(tmp_path, n_train=60, n_dev=12)
    source = RunSettings(task_name="MNLI", data_dir=str(tmp_path))
    if own_files:
        files = {"train_file": str(tmp_path / "train.tsv"), "validation_file": [str(tmp_path / "dev_matched.tsv")]}
        source = RunSettings(**files, text_columns=["sentence1", "sentence2"], label_column="gold_label")

    def pool(size=20):
        return make_pool(open_data(source), source, size, tmp_path / "pool")

    assert pool() == pool() and len(open_data(pool()).load("train")) == 20
    with pytest.raises(InputError, match=r"--pool_size 21: .*/pool was made with another one"):
        pool(21)
    dev = tmp_path / "dev_matched.tsv"
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"dev_matched.tsv: .*/pool was made with another one"):
        pool()


# ------------------------------------------------------------------------------------------------------------ bad input
def test_other_settings_in_the_same_folder_are_refused(done, world):
    with pytest.raises(InputError, match="holds a sweep with other flags"):
        script.main([str(word) for word in flags(world, done[0], "--weight_decay", "0.1")])


@pytest.mark.parametrize("flag", [("--seed", "3"), ("--max_steps", "5"), ("--do_predict",), ("--selection", "x.npz")])
def test_what_the_sweep_decides_cannot_be_given(world, tmp_path, flag, capsys):
    with pytest.raises(SystemExit) as status:
        script.main([str(word) for word in flags(world, tmp_path, *flag)])
    assert status.value.code == 2 and f"{flag[0]} is not for a sweep" in capsys.readouterr().err


def test_flags_that_cannot_work_are_found_before_the_first_run(world, tmp_path):
    shutil.copytree(world / "model", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{")
    more = ["--config_name", tmp_path / "model"]
    printed = finish(start(world, tmp_path / "out", *more), status=2)
    assert "tried out with these flags failed" in printed and not (tmp_path / "out" / "runs").exists()


# ------------------------------------------------------------------------------------------------------ make reproduce
def make_reproduce(*variables):
    """`make reproduce` with this Python; its virtual environment counts as set up."""
    command = ["make", "-o", "setup", "reproduce", f"BIN={os.path.dirname(sys.executable)}", *map(str, variables)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT, env=environment, timeout=300)


def test_make_reproduce_goes_its_whole_way_on_stand_ins(world, tmp_path):
    trained = tmp_path / "model"
    shutil.copytree(world / "model", trained)
    transformers.BertForSequenceClassification(tiny.config("bert")).save_pretrained(trained)
    (tmp_path / "glue").mkdir()
    shutil.copytree(world / "data", tmp_path / "glue" / "MNLI")
    recipe = "--max_seq_length 32 --per_gpu_train_batch_size 8 --learning_rate 1e-3 --num_train_epochs 8.0 --fp16"
    done = make_reproduce(
        f"MODEL={trained}", f"GLUE_DIR={tmp_path / 'glue'}", f"HANS_DIR={world / 'hans'}", "SHARES=0.5 1.0", "SEEDS=0",
        f"RECIPE={recipe}", f"OUT={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "reproduce" / "report" / "results.md").read_text()
    assert "Beside the published numbers" in report and "70.99 / 72.96" in report
    assert "| 100 | all | epochs | 1 |" in report


def test_make_reproduce_without_hub_and_data_is_one_line(tmp_path):
    done = make_reproduce(f"OUT={tmp_path}")
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and len(said) == 1 and "Give --data_dir" in said[0]
