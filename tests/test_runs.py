"""A run's outside: whole files, one-line errors with their exit status, arguments, the run directory."""

import argparse
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny
from utils import runs
from utils.runs import ArgumentParser, InputError, RunDirectory, parse_args


# --------------------------------------------------------------------------------------------------------------- files
def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert runs.read_json(path) == {"a": 1} and os.listdir(tmp_path) == ["file.json"]


def test_json_of_numpy_and_paths(tmp_path):
    runs.write_json(tmp_path / "x.json", {"n": np.int64(3), "v": np.arange(2), "p": tmp_path, "ü": "ü"})
    assert runs.read_json(tmp_path / "x.json") == {"n": 3, "v": [0, 1], "p": str(tmp_path), "ü": "ü"}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_unreadable_json_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: not readable as JSON"):
        runs.read_json(tmp_path / "x.json")


def test_npz_round_trip_and_damage(tmp_path):
    path = tmp_path / "x.npz"
    runs.write_npz(path, a=np.arange(3), b=np.zeros((2, 2), dtype=np.float16))
    assert runs.read_npz(path, required=("a",))["b"].dtype == np.float16
    with pytest.raises(InputError, match="but not \\['c'\\]"):
        runs.read_npz(path, required=("c",))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut short"):
        runs.read_npz(path)


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(InputError, match="not a readable"):
        runs.read_npz(tmp_path / "x.npz")


# ---------------------------------------------------------------------------------------------------------- exit status
def ended(body: str) -> subprocess.CompletedProcess:
    code = f"import errno, sys; sys.argv = ['script.py']\nfrom utils.runs import *\ndef main():\n    {body}\nrun_script(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT)


@pytest.mark.parametrize(
    "body, status, said",
    [
        ("raise InputError('the flag --x\\n is wrong')", 2, "script.py: error: the flag --x is wrong\n"),
        ("raise RunFailed('loss is nan')", 1, "script.py: failed: loss is nan\n"),
        ("raise Interrupted('SIGTERM')", 75, "script.py: stopped: SIGTERM\n"),
        ("raise KeyboardInterrupt", 130, "stopped by Ctrl-C"),
        ("raise OSError(errno.ENOSPC, 'full', '/x/y')", 1, "No space left on device while writing /x/y"),
        ("raise PermissionError(errno.EACCES, 'no', '/x')", 1, "Permission denied while writing /x"),
    ],
)
def test_foreseen_failures_are_one_line_with_their_status(body, status, said):
    done = ended(body)
    assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == 1


def test_a_defect_of_ours_keeps_its_traceback():
    done = ended("1 / 0")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    runs.write_text(tmp_path / "x", "good")

    def full(fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        runs.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "good" and os.listdir(tmp_path) == ["x"]


# ------------------------------------------------------------------------------------------------------------ arguments
def parser():
    made = ArgumentParser(prog="script.py")
    made.add_argument("--rate", type=float, default=1.0)
    made.add_argument("--flag", action="store_true")
    made.add_argument("--many", nargs="+", type=int)
    made.add_argument("--name")
    return made


def test_one_json_file_stands_for_all_flags(tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"rate": 0.5, "flag": True, "many": [1, 2], "name": None}))
    args = parse_args(parser(), [str(path)])
    assert vars(args) == {"rate": 0.5, "flag": True, "many": [1, 2], "name": None}


@pytest.mark.parametrize("content", ["[1]", "{", '{"unknown": 1}', '{"rate": "fast"}'])
def test_a_json_file_that_cannot_be_used(tmp_path, content, capsys):
    path = tmp_path / "flags.json"
    path.write_text(content)
    with pytest.raises(SystemExit) as status:
        parse_args(parser(), [str(path)])
    assert status.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_no_abbreviations(capsys):
    with pytest.raises(SystemExit):
        parse_args(parser(), ["--fla"])
    assert "--fla" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (runs.positive_int, {"3": 3}, ["0", "-1", "1.5", "x"]),
        (runs.non_negative_int, {"0": 0}, ["-1", "x"]),
        (runs.positive_float, {"1e-5": 1e-5}, ["0", "nan", "inf", "x"]),
        (runs.non_negative_float, {"0": 0.0}, ["-0.1", "nan", "inf"]),
        (runs.data_fraction, {"0.1": 0.1, "1": 1.0}, ["0", "10", "-0.1", "nan", "x"]),
    ],
)
def test_kinds_of_numbers(kind, good, bad):
    for text, value in good.items():
        assert kind(text) == value
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


# -------------------------------------------------------------------------------------------------------- run directory
def directory(path, overwrite=False, script="a.py", **arguments):
    return RunDirectory(path, script=script, arguments={"lr": 1, **arguments}, overwrite=overwrite)


def test_a_finished_run_is_refused_and_replaced_only_when_asked(tmp_path):
    run = directory(tmp_path / "out")
    assert not (tmp_path / "out").exists()  # construction writes nothing
    run.begin(data="abc")
    run.finish({"acc": 1})
    with pytest.raises(InputError, match="holds a finished run"):
        directory(tmp_path / "out")
    directory(tmp_path / "out", overwrite=True).begin(data="abc")
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_unfinished_run_is_continued_with_the_same_arguments_only(tmp_path):
    directory(tmp_path, save_steps=5).begin(data="abc")
    again = directory(tmp_path, save_steps=9)  # does not change what is computed
    assert again.resuming
    again.begin(data="abc")
    with pytest.raises(InputError, match="--lr was 1, now 2"):
        directory(tmp_path, lr=2)
    with pytest.raises(InputError, match=r"unfinished run of a\.py"):
        directory(tmp_path, script="b.py")
    with pytest.raises(InputError, match="unfinished run on other data"):
        directory(tmp_path).begin(data="xyz")


def test_the_folder_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="is a file"):
        directory(tmp_path / "x")


def test_run_json_records_arguments_and_versions(tmp_path):
    directory(tmp_path).begin(data="abc")
    about = runs.read_json(tmp_path / "run.json")
    assert about["script"] == "a.py" and about["arguments"] == {"lr": 1} and about["data"] == "abc"
    assert {"python", "torch", "transformers", "numpy", "code"} <= about["versions"].keys()
