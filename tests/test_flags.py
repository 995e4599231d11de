"""Flags as the Hugging Face scripts take them: values of booleans, fractions of steps, no-ops, tokens, the folded help."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests import tiny
from utils.command_line import ArgumentParser, parse_args, recorded_words
from utils.errors import InputError
from utils.flags import RunSettings, TrainingSettings, add_run_flags
from utils.moments import MomentSettings
from utils.settings import settings_from, words_of
from utils.training.optimizer import learning_rate_schedule

GIVEN = ("--task_name", "mnli", "--output_dir", "out", "--config_name", "c", "--do_train")


def parsed(*words) -> RunSettings:
    parser = ArgumentParser()
    add_run_flags(parser)
    return settings_from(RunSettings, parse_args(parser, [*GIVEN, *words]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--fp16"], True), (["--fp16", "True"], True), (["--fp16=true"], True), (["--fp16", "1"], True), ([], False),
        (["--fp16", "False"], False), (["--fp16=no"], False), (["--fp16", "--fp16", "False"], False),
        (["--fp16", "False", "--fp16"], True),
    ],
)  # fmt: skip
def test_a_boolean_takes_a_value_and_false_means_false(words, expected):
    assert parsed(*words).fp16 is expected
    assert parsed("--do_train", "True", *words, "--do_eval", "True").do_eval is True


def test_a_boolean_without_a_default_is_true_false_or_not_given():
    assert [parsed(*words).tf32 for words in ([], ["--tf32"], ["--tf32", "True"], ["--tf32", "False"])] == [
        None, True, True, False,
    ]  # fmt: skip
    assert words_of(parsed("--greater_is_better", "False"), MomentSettings) == ["--greater_is_better", "False"]


def test_a_positional_argument_after_a_boolean_is_no_value():
    parser = ArgumentParser()
    parser.add_argument("runs")
    parser.add_argument("--published", action="store_true")
    assert vars(parse_args(parser, ["--published", "out"])) == {"runs": "out", "published": True}


def test_minus_one_step_is_no_number_of_steps():
    assert parsed("--max_steps", "-1").max_steps is None and parsed("--max_steps", "7").max_steps == 7


def test_a_warm_up_below_one_is_a_share_and_wins_over_the_ratio():
    def peak(**settings):
        rates = learning_rate_schedule(TrainingSettings(learning_rate=1.0, **settings), 50)
        return max(range(50), key=rates)

    assert peak(warmup_steps=0.1) == peak(warmup_steps=5) == peak(warmup_ratio=0.1) == 5
    assert peak(warmup_steps=0.2, warmup_ratio=0.1) == 10
    assert parsed("--warmup_steps", "0.1").warmup_steps == 0.1 and parsed("--warmup_steps", "20").warmup_steps == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--warmup_steps", "2.5"], "neither a whole number"), (["--logging_steps", "0"], "not a whole number from 1"),
        (["--optim", "adam8bit"], "invalid choice"), (["--tf32", "maybe"], "neither True nor False"),
        (["--report_to", "comet_ml"], "invalid choice"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--load_best_model_at_end"], ["--early_stopping_patience", "2"], ["--save_strategy", "best"]],
)
def test_what_compares_evaluations_needs_some(words):
    with pytest.raises(InputError, match=f"{words[0]}.* needs evaluations while training"):
        parsed(*words).check()
    parsed(*words, "--evaluation_strategy", "epoch").check()


def test_no_ops_say_why_and_leave_no_trace(capsys):
    quiet = parsed()
    words = ["--dataloader_num_workers", "4", "--pad_to_max_length", "False", "--resume_from_checkpoint"]
    assert parsed(*words) == quiet
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "loader processes" in lines[0] and "always continued" in lines[2]


def test_a_token_reaches_the_libraries_and_no_file(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    settings = parsed("--token", "hf_secret")
    assert os.environ.pop("HF_TOKEN") == "hf_secret" and settings.token is None
    words = ["run_glue.py", "--token", "hf_secret", "--token=hf_secret", "--do_train"]
    assert recorded_words(words) == ["run_glue.py", "--token", "***", "--token=***", "--do_train"]


def test_several_trackers_travel_to_another_script():
    from utils.flags import TrackerSettings

    assert words_of(parsed("--report_to", "tensorboard", "wandb"), TrackerSettings) == [
        "--report_to", "tensorboard", "wandb",
    ]  # fmt: skip
    assert words_of(parsed("--report_to", "none"), TrackerSettings)[:2] in ([], ["--report_to", "none"])


def due(total=100, epoch=30, **settings):
    """The steps after which a training of `total` steps logs, evaluates and saves."""
    plan = MomentSettings(**settings)
    dues = {
        done: plan.due(done, total, epoch_ends=done % epoch == 0, last=done == total) for done in range(1, total + 1)
    }
    return [[done for done, what in dues.items() if getattr(what, name)] for name in ("log", "evaluate", "save")]


def test_when_to_log_evaluate_and_save():
    assert due(logging_steps=40, save_steps=50) == [[40, 80, 100], [], [30, 50, 60, 90, 100]]
    assert due(logging_strategy="epoch", logging_first_step=True, eval_steps=25, save_strategy="steps") == [
        [1, 30, 60, 90, 100], [25, 50, 75], [],
    ]  # fmt: skip
    assert due(logging_strategy="no", eval_strategy="epoch", save_strategy="no") == [[100], [30, 60, 90], []]
    assert due(logging_steps=0.3, eval_strategy="steps", save_strategy="epoch") == [
        [30, 60, 90, 100], [30, 60, 90], [30, 60, 90],
    ]  # fmt: skip
    # The last step takes part in the comparison; else its evaluation is the one at the end.
    assert due(eval_steps=50, load_best_model_at_end=True, save_strategy="best")[1:] == [[50, 100], []]


@pytest.mark.parametrize("script", ["run_glue", "subsampling_mnli", "importance_sampling_mnli", "sweep", "test_hans"])
def test_help_explains_the_scripts_own_flags_and_names_the_shared_ones(script):
    def shown(flag):
        done = subprocess.run([sys.executable, f"{script}.py", flag], capture_output=True, text=True, cwd=tiny.ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    short, full = shown("--help"), shown("--help_all")
    assert short.splitlines()[0].endswith("[flags]") and "--help_all" in short
    named = short.partition("--help_all explains them:")[2]
    assert "--fp16" in named and "mixed precision" not in short and "mixed precision with float16" in full


def test_bars_and_log_lines_do_not_overwrite_each_other():
    """On a terminal a log line takes a line of its own, and the bar shows the loss at once."""
    import fcntl
    import pty
    import struct
    import termios

    code = (
        "import logging, torch\n"
        "from utils.command_line import setup_logging\n"
        "from utils.training.progress import advance, progress_bar\n"
        "setup_logging()\n"
        "with progress_bar(3, 0, visible=True) as bar:\n"
        "    for k in range(3):\n"
        "        advance(bar, torch.tensor(0.25)); logging.info('line %d', k)\n"
    )
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT), "TQDM_DISABLE": "0", "TQDM_MININTERVAL": "0"}
    subprocess.run([sys.executable, "-c", code], stderr=follower, env=environment, cwd=tiny.ROOT, check=True)
    os.close(follower)
    written = b""
    try:
        while block := os.read(leader, 65536):
            written += block
    except OSError:
        pass
    screen = [line.split("\r")[-1].strip() for line in written.decode().replace("\r\n", "\n").split("\n")]
    assert [line for line in screen if "line" in line] == [line for line in screen if line.endswith(("0", "1", "2"))]
    assert sum(" INFO line " in line and "training" not in line for line in screen) == 3
    assert re.search(r"1/3 .*loss=0\.2500", written.decode())
    silent = subprocess.run(
        [sys.executable, "run_glue.py", *GIVEN, "--disable_tqdm", "True", "--config_name", "nowhere/at/all"],
        capture_output=True, text=True, cwd=tiny.ROOT,
    )  # fmt: skip
    assert "unrecognized" not in silent.stderr


def test_a_json_file_gives_lists_and_false(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"report_to": ["tensorboard"], "fp16": False, "tf32": "False"}))
    parser = ArgumentParser()
    add_run_flags(parser)
    words = [*GIVEN]
    from utils.command_line import command_line

    args = parse_args(parser, [*words, *command_line(parser, [str(tmp_path / "f.json")])])
    assert args.report_to == ["tensorboard"] and args.fp16 is False and args.tf32 is False
