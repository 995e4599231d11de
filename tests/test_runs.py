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
from utils.command_line import (
    ArgumentParser,
    data_fraction,
    non_negative_float,
    non_negative_int,
    parse_args,
    positive_float,
    positive_int,
)
from utils.errors import InputError
from utils.files import (
    atomic_path,
    cache_entry,
    entry_damage,
    file_sha256,
    folder_lock,
    read_json,
    read_npz,
    save_array,
    write_json,
    write_npz,
    write_text,
)
from utils.run_directory import RunDirectory


# --------------------------------------------------------------------------------------------------------------- files
def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1} and os.listdir(tmp_path) == ["file.json"]


def test_a_file_is_seen_whole_or_not_at_all_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "x"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.parent == path.parent  # the same disk: a change of names is enough
    assert path.read_text() == "half" and os.listdir(path.parent) == ["x"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_failing_array_leaves_the_old_npz(tmp_path):
    write_npz(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(ValueError, match=r"[Oo]bject arrays cannot be saved"):
        write_npz(tmp_path / "x.npz", a=np.zeros(9), b=np.array([{}], dtype=object))
    assert read_npz(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2] and os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("read", [read_json, read_npz])
def test_a_missing_file_is_one_line(tmp_path, read):
    with pytest.raises(InputError, match=rf"^{tmp_path}/none: no such file$"):
        read(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"\x80\x04N."], ids=["empty", "json", "zip", "pickle"])
def test_another_kind_of_file_is_no_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: not a readable \.npz file") as error:
        read_npz(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def test_a_single_array_is_no_npz(tmp_path):
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(InputError, match=r"x\.npz: not a readable \.npz file \(it is one bare array"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [write_npz, np.savez_compressed])
def test_any_flipped_bit_of_an_npz_is_refused_or_changes_nothing(tmp_path, save):
    path, arrays = tmp_path / "x.npz", {"a": np.arange(3), "b": np.ones(2, dtype=np.float32)}
    save(path, **arrays)
    whole, refused = path.read_bytes(), 0
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << (i % 8)
        path.write_bytes(damaged)
        try:
            read = read_npz(path, required=("a", "b"))
        except InputError:
            refused += 1
            continue
        assert all((read[name] == array).all() and read[name].dtype == array.dtype for name, array in arrays.items())
    assert refused > len(whole) / 2  # dates, versions and the like are nobody's loss


def test_json_of_numpy_and_paths(tmp_path):
    write_json(tmp_path / "x.json", {"n": np.int64(3), "v": np.arange(2), "p": tmp_path, "ü": "ü"})
    assert read_json(tmp_path / "x.json") == {"n": 3, "v": [0, 1], "p": str(tmp_path), "ü": "ü"}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_unreadable_json_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: not readable as JSON"):
        read_json(tmp_path / "x.json")


def test_json_of_another_kind_is_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[1, 2]")
    assert read_json(tmp_path / "x.json", list) == [1, 2]
    with pytest.raises(InputError, match=r"x\.json: expected JSON of the kind dict, found list"):
        read_json(tmp_path / "x.json")


def test_npz_round_trip_and_damage(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, a=np.arange(3), b=np.zeros((2, 2), dtype=np.float16))
    assert read_npz(path, required=("a",))["b"].dtype == np.float16
    with pytest.raises(InputError, match="but not \\['c'\\]"):
        read_npz(path, required=("c",))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut short"):
        read_npz(path)


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(InputError, match="not a readable"):
        read_npz(tmp_path / "x.npz")


# ---------------------------------------------------------------------------------------------------------- exit status
def ended(body: str) -> subprocess.CompletedProcess:
    code = f"import errno, sys; sys.argv = ['script.py']\nfrom utils.errors import *\ndef main():\n    {body}\nrun_script(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT)


@pytest.mark.parametrize(
    "body, status, said",
    [
        ("raise InputError('the flag --x\\n is wrong')", 2, "script.py: error: the flag --x is wrong\n"),
        ("raise RunFailed('loss is nan')", 1, "script.py: failed: loss is nan\n"),
        ("raise Interrupted('SIGTERM')", 75, "script.py: stopped: SIGTERM\n"),
        ("raise KeyboardInterrupt", 130, "stopped by Ctrl-C"),
        ("raise OSError(errno.ENOSPC, 'full', '/x/y')", 1, "No space left on device (/x/y)"),
        ("raise RuntimeError('I/O error: full (os error 28)')", 1, "No space left on device"),  # from a Rust library
        ("raise PermissionError(errno.EACCES, 'no', '/x')", 2, "/x: Permission denied"),
        ("raise OSError(errno.ELOOP, 'loop', '/x')", 2, "/x: Too many levels of symbolic links"),
        ("raise OSError('1000 requested and 40 written')", 1, "No space left on device"),  # numpy on a full disk
        ("raise MemoryError", 1, "out of memory"),
        ("open('/dev/null', 'w', encoding='utf-8').write('/x/\\udcff')", 2, "'/x/\\udcff': this name is not UTF-8"),
        ("raise InputError('x' * 10_000_000)", 2, "xxx ..."),
    ],
)
def test_foreseen_failures_are_one_line_with_their_status(body, status, said):
    done = ended(body)
    assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("body", ["pass", "raise BrokenPipeError"])
def test_success_and_a_reader_that_has_enough_are_silent(body):
    done = ended(body)
    assert done.returncode == 0 and done.stdout == done.stderr == ""


@pytest.mark.parametrize("body, name", [("1 / 0", "ZeroDivisionError"), ("{}['x']", "KeyError")])
def test_a_defect_of_ours_keeps_its_traceback(body, name):
    done = ended(body)
    assert done.returncode == 1 and name in done.stderr and "Traceback" in done.stderr


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    write_text(tmp_path / "x", "good")

    def full(fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_text(tmp_path / "x", "new")
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
    assert parse_args(parser(), ["--rate", "0.5", "--flag", "--many", "1", "2"]) == args
    path.write_text(json.dumps({"flag": False, "name": "words with spaces"}))
    assert vars(parse_args(parser(), [str(path)])) == {
        "rate": 1.0,
        "flag": False,
        "many": None,
        "name": "words with spaces",
    }


def test_a_json_file_is_all_there_is_or_no_file_of_flags(tmp_path, capsys):
    path = tmp_path / "flags.json"
    path.write_text('{"rate": 0.5}')
    with pytest.raises(SystemExit) as status:
        parse_args(parser(), [str(path), "--flag"])
    assert status.value.code == 2 and "flags.json" in capsys.readouterr().err
    assert parse_args(parser(), ["--name", str(path)]).name == str(path)


def test_a_missing_json_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        parse_args(parser(), [str(tmp_path / "none.json")])
    assert status.value.code == 2 and "none.json: no such file" in capsys.readouterr().err


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
        (positive_int, {"3": 3}, ["0", "-1", "1.5", "x"]),
        (non_negative_int, {"0": 0}, ["-1", "x"]),
        (positive_float, {"1e-5": 1e-5}, ["0", "nan", "inf", "x"]),
        (non_negative_float, {"0": 0.0}, ["-0.1", "nan", "inf"]),
        (data_fraction, {"0.1": 0.1, "1": 1.0}, ["0", "10", "-0.1", "nan", "x"]),
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


@pytest.mark.parametrize(("name", "before", "now"), [("number of processes", 1, 2), ("precision", "bf16", "float32")])
def test_an_unfinished_run_is_continued_on_a_machine_like_the_first_one(tmp_path, name, before, now):
    directory(tmp_path).begin(**{name: before})
    directory(tmp_path).begin(**{name: before})
    with pytest.raises(
        InputError, match=rf"unfinished run with another {name} \({before}, now {now}\); continue it as"
    ):
        directory(tmp_path).begin(**{name: now})
    directory(tmp_path, overwrite=True).begin()  # as an earlier version began it
    directory(tmp_path).begin(**{name: now})


def test_continuing_rewrites_nothing_and_clears_half_written_files(tmp_path):
    directory(tmp_path).begin(data="abc")
    (tmp_path / ".results.json.123.tmp").write_text("{")
    before = (tmp_path / "run.json").read_bytes()
    with folder_lock(tmp_path):
        directory(tmp_path, save_steps=9).begin(data="abc")
    assert (tmp_path / "run.json").read_bytes() == before and os.listdir(tmp_path) == ["run.json"]


def test_overwriting_removes_what_is_ours_and_nothing_else(tmp_path):
    directory(tmp_path).begin(data="abc")
    ours = (
        "log.jsonl", "eval_log.json", "dynamics.npz", "data_map.png", "data_map.pdf", "selection.npz", "selection.json", "results.json",
        "predictions_dev_matched.tsv", "eval_results_mnli.txt", "config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "spiece.model", "vocab.txt",
    )  # fmt: skip
    for name in (*ours, "MNLI-m.tsv", "notes.txt", "cls_embeddings_mnli_train.npy"):
        (tmp_path / name).write_text("old")
    for name in ("checkpoints", "dynamics", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("old")
    again = directory(tmp_path, overwrite=True, lr=2)
    assert not again.resuming and (tmp_path / "log.jsonl").exists()  # construction changes nothing
    again.begin(predictions=["MNLI-m.tsv", "MNLI-mm.tsv"], data="xyz")
    left = ["cls_embeddings_mnli_train.npy", "mine", "notes.txt", "run.json"]
    assert sorted(os.listdir(tmp_path)) == left and (tmp_path / "mine" / "x").exists()
    about = read_json(tmp_path / "run.json")
    assert about["arguments"]["lr"] == 2 and about["data"] == "xyz"


def test_overwriting_removes_the_challenge_results_of_this_checkpoint_only(tmp_path):
    run = tmp_path / "run"
    directory(run).begin()
    for folder, model in (("hans", run), ("other", tmp_path / "another_model")):
        (run / folder).mkdir()
        for name in ("hans_predictions.txt", "hans.png", "notes.txt"):
            (run / folder / name).write_text("old")
        about = {"model": str(model), "files": ["hans_predictions.txt", "hans.png"]}
        (run / folder / "hans_results.json").write_text(json.dumps(about))
    directory(run, overwrite=True).begin()
    assert os.listdir(run / "hans") == ["notes.txt"]
    assert len(os.listdir(run / "other")) == 4


def test_a_model_of_somebody_else_is_never_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds a model that no run of ours wrote \(config\.json\)"):
        RunDirectory(tmp_path, script="a.py", arguments={}, overwrite=True, writes_model=True)
    RunDirectory(tmp_path, script="a.py", arguments={}, model=str(tmp_path))  # an evaluation destroys nothing
    directory(tmp_path).begin()
    for facts in ({"writes_model": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="is the folder of --model_name_or_path"):
            RunDirectory(tmp_path, script="a.py", arguments={"lr": 1}, model=f"{tmp_path}/.", **facts)


def test_checkpoints_without_a_run_are_not_continued(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"holds checkpoints but no run\.json"):
        directory(tmp_path)


def test_only_the_main_process_writes_but_every_one_checks(tmp_path):
    helper = RunDirectory(tmp_path / "out", script="a.py", arguments={"lr": 1}, main_process=False)
    helper.begin(data="abc")
    helper.finish({"acc": 1})
    assert not (tmp_path / "out").exists()
    directory(tmp_path / "out").begin(data="abc")
    helper = RunDirectory(tmp_path / "out", script="a.py", arguments={"lr": 1}, main_process=False)
    with pytest.raises(InputError, match="unfinished run on other data"):
        helper.begin(data="xyz")


def test_a_flag_that_came_or_went_is_another_argument(tmp_path):
    directory(tmp_path, seed=3).begin()
    with pytest.raises(InputError, match="--seed was 3, now None"):
        directory(tmp_path)
    with pytest.raises(InputError, match=r"--warmup was None, now 0\.1"):
        directory(tmp_path, seed=3, warmup=0.1)


def test_the_logging_steps_are_another_argument_where_they_say_when_to_evaluate(tmp_path):
    directory(tmp_path, eval_strategy="steps", eval_steps=None, logging_steps=5).begin()
    with pytest.raises(InputError, match="--logging_steps was 5, now 9"):
        directory(tmp_path, eval_strategy="steps", eval_steps=None, logging_steps=9)
    directory(tmp_path, overwrite=True, eval_strategy="steps", eval_steps=4, logging_steps=5).begin()
    directory(tmp_path, eval_strategy="steps", eval_steps=4, logging_steps=9)


def test_a_damaged_run_json_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"script": "a.')
    with pytest.raises(InputError, match=r"run\.json: not readable as JSON"):
        directory(tmp_path)
    directory(tmp_path, overwrite=True).begin()
    assert read_json(tmp_path / "run.json")["script"] == "a.py"


def test_the_folder_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="is a file"), folder_lock(tmp_path / "x"):
        pass


def test_run_json_records_arguments_and_versions(tmp_path):
    directory(tmp_path).begin(data="abc")
    about = read_json(tmp_path / "run.json")
    assert about["script"] == "a.py" and about["arguments"] == {"lr": 1} and about["data"] == "abc"
    assert {"python", "torch", "transformers", "numpy", "code"} <= about["versions"].keys()


# ---------------------------------------------------------------------------------------------------------------- lock
def test_a_second_process_is_kept_out_of_an_output_folder(tmp_path):
    """The lock of a killed process is free again; a folder that stays empty is removed."""
    code = (
        "import sys, time; from utils.files import folder_lock\n"
        f"with folder_lock({str(tmp_path / 'out')!r}):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tiny.ROOT) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="out is in use by another process"), folder_lock(tmp_path / "out"):
            pass
        holder.kill()
        holder.wait()
    with folder_lock(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").exists()
    assert os.listdir(tmp_path / "out") == []
    with folder_lock(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


def test_half_written_files_of_a_killed_process_are_removed(tmp_path):
    for name in (".results.json.4711.tmp", ".mine.tmp", "4711.tmp"):
        (tmp_path / name).touch()
    with folder_lock(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mine.tmp", "4711.tmp"]


def test_an_error_in_a_locked_block_is_not_swallowed(tmp_path):
    with pytest.raises(FileNotFoundError), folder_lock(tmp_path / "out"):
        (tmp_path / "missing").read_text()


@pytest.mark.parametrize("folder", ["", "."])
def test_the_current_folder_is_no_output_folder(folder):
    with pytest.raises(InputError, match="name a folder"), folder_lock(folder):
        pass


def test_an_array_that_the_disk_did_not_take_whole_is_noticed(tmp_path):
    code = f"""
import resource, signal, numpy as np
from utils.files import save_array
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_array({str(tmp_path / "whole.npy")!r}, np.arange(100))
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
save_array({str(tmp_path / "cut.npy")!r}, np.arange(100))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT)
    assert np.load(tmp_path / "whole.npy").tolist() == list(range(100))
    assert done.returncode == 1 and "OSError" in done.stderr


def test_of_two_entries_of_a_cache_made_at_once_the_whole_one_stays(tmp_path):
    place = tmp_path / "cache" / "entry"
    with cache_entry(place, n=1) as first:
        save_array(first / "a.npy", np.zeros(3))
        (second := tmp_path / "second").mkdir()
        save_array(second / "a.npy", np.zeros(3))
        write_json(second / "about.json", {"sha256": {"a.npy": file_sha256(second / "a.npy")}})
        second.rename(place)
    assert entry_damage(place) is None and "n" not in read_json(place / "about.json")
    (place / "a.npy").write_bytes(b"")
    assert "does not match" in entry_damage(place)
    with cache_entry(place, n=2) as again:  # a damaged one goes
        save_array(again / "a.npy", np.ones(3))
    assert entry_damage(place) is None and read_json(place / "about.json")["n"] == 2
    assert [path.name for path in place.parent.iterdir()] == ["entry"]
