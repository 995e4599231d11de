"""`run_glue.py` from the shell: what it writes, what it refuses, and that a kill costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.tiny import run_script
from utils.selection.selection import Selection


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_mnli(tmp_path_factory.mktemp("mnli"), n_train=96, n_dev=30, test=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny.write_config(tmp_path_factory.mktemp("config"), "albert")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TIS_CACHE", str(tmp_path / "cache"))


def flags(data, config, out, *more):
    return [
        "--config_name", config, "--tokenizer_name", config, "--task_name", "MNLI", "--data_dir", data,
        "--do_train", "--do_eval", "--per_gpu_train_batch_size", "16", "--learning_rate", "1e-3",
        "--num_train_epochs", "2", "--max_seq_length", "32", "--output_dir", out, *more,
    ]  # fmt: skip


def test_the_whole_contract(data, config, tmp_path):
    out = tmp_path / "out"
    done = run_script("run_glue.py", *flags(data, config, out, "--do_predict", "--record_dynamics", "--fp16"))
    results = json.loads((out / "results.json").read_text())
    accuracies = " / ".join(f"{100 * results['eval'][s]['eval_acc']:.5f}" for s in ("dev_matched", "dev_mismatched"))
    assert f"mnli/mnli-mm eval_acc: {accuracies}" in done.stdout
    assert done.stdout.splitlines()[-1] == f"everything is in {out}"
    assert done.stderr.count("--fp16 needs a CUDA GPU") == 1
    begun = json.loads((out / "run.json").read_text())
    assert (begun["number of processes"], begun["precision"]) == (1, "float32")
    assert (out / "eval_results_mnli.txt").read_text().startswith("eval_acc = ")
    assert (out / "eval_results_mnli-mm.txt").exists() and not (out / "checkpoints").exists()
    lines = (out / "predictions_dev_matched.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["index", "gold", "prediction", "p_contradiction", "p_entailment", "p_neutral"]
    assert len(lines) == 31
    fields = [line.split("\t") for line in lines[1:]]
    right = np.mean([f[1] == f[2] for f in fields])
    assert right == pytest.approx(results["eval"]["dev_matched"]["eval_acc"])
    assert (out / "MNLI-m.tsv").read_text().splitlines()[0] == "index\tprediction"
    assert len((out / "MNLI-mm.tsv").read_text().splitlines()) == 8
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert (
        log[-1]["step"] == 12 and {"loss", "lr", "epoch", "examples_per_second", "tokens_per_second"} <= log[-1].keys()
    )
    run = json.loads((out / "run.json").read_text())
    assert run["arguments"]["learning_rate"] == 1e-3 and run["data"]["train"]["n"] == 96 and "torch" in run["versions"]
    with np.load(out / "dynamics.npz", allow_pickle=False) as dynamics:
        assert dynamics["logits"].shape == (2, 96, 3) and np.isfinite(dynamics["logits"]).all()
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "contradiction", 1: "entailment", 2: "neutral"}
    # The folder is a --model_name_or_path, and evaluates to the same numbers.
    again = tmp_path / "again"
    run_script(
        "run_glue.py",
        "--model_name_or_path",
        out,
        "--task_name",
        "mnli",
        "--do_eval",
        "--data_dir",
        data,
        "--max_seq_len",
        "32",
        "--output_dir",
        again,
    )
    assert json.loads((again / "results.json").read_text())["eval"] == results["eval"]


def test_flags_from_a_json_file_and_a_dry_run_that_leaves_nothing(data, config, tmp_path):
    options = {
        "config_name": str(config), "tokenizer_name": str(config), "task_name": "MNLI", "data_dir": str(data),
        "do_train": True, "do_eval": True, "fp16": False, "output_dir": str(tmp_path / "out"), "dry_run": True,
    }  # fmt: skip
    (tmp_path / "flags.json").write_text(json.dumps(options))
    done = run_script("run_glue.py", tmp_path / "flags.json")
    assert "dry run: everything works" in done.stdout
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".dry_run*"))


def test_training_on_a_selection_is_training_on_those_rows(data, config, tmp_path):
    from utils.data.examples import load_split
    from utils.data.tasks import get_task

    examples = load_split(get_task("mnli"), "train", data_dir=data)
    rows = np.array([5, 17, 60, 61])
    Selection(rows, np.ones(4), 96, examples.fingerprint, provenance={"method": "hand"}).save(tmp_path / "s.npz")
    out = tmp_path / "out"
    run_script("run_glue.py", *flags(data, config, out, "--selection", tmp_path / "s.npz", "--record_dynamics"))
    results = json.loads((out / "results.json").read_text())
    assert results["selection"]["m"] == 4 and results["train"]["examples"] == 8
    with np.load(out / "dynamics.npz") as dynamics:
        seen = np.isfinite(dynamics["logits"]).all(axis=(0, 2))
    assert np.flatnonzero(seen).tolist() == rows.tolist()
    more = ("--selection", tmp_path / "s.npz", "--record_dynamics", "--dynamics_all_rows")
    run_script("run_glue.py", *flags(data, config, tmp_path / "all_rows", *more))
    with np.load(tmp_path / "all_rows" / "dynamics.npz") as dynamics:
        assert np.isfinite(dynamics["logits"]).all()
    other = tiny.write_mnli(tmp_path / "other", n_train=96, seed=5)
    refused = run_script(
        "run_glue.py", *flags(other, config, tmp_path / "o2", "--selection", tmp_path / "s.npz"), check=2
    )
    assert "made for other data" in refused.stderr and not (tmp_path / "o2").exists()


def test_max_train_samples_is_a_seeded_random_sample_and_recorded(data, config, tmp_path):
    run_script(
        "run_glue.py", *flags(data, config, tmp_path / "out", "--max_train_samples", "20", "--max_eval_samples", "9")
    )
    chosen = Selection.load(tmp_path / "out" / "selection.npz")
    assert len(set(chosen.indices)) == 20 and chosen.indices.tolist() != list(range(20))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["eval"]["dev_matched"]["n"] == 9 and results["selection"]["method"] == "random"


def test_both_segments_reach_the_model_in_training_and_evaluation(data, config, tmp_path):
    """Padded or packed, all goes through the encoder."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, json\n"
        "from transformers import AlbertModel as M\n"
        "seen = {True: set(), False: set()}\n"
        "real = M.forward\n"
        "def forward(self, *a, token_type_ids=None, **k):\n"
        "    seen[self.training] |= set(token_type_ids.unique().tolist())\n"
        "    return real(self, *a, token_type_ids=token_type_ids, **k)\n"
        "M.forward = forward\n"
        "import run_glue\n"
        "run_glue.main(sys.argv[1:])\n"
        "print('SEGMENTS', sorted(seen[True]), sorted(seen[False]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(probe), *map(str, flags(data, config, tmp_path / "out"))],
        capture_output=True, text=True, cwd=tiny.ROOT, env=os.environ | {"PYTHONPATH": str(tiny.ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert "SEGMENTS [0, 1] [0, 1]" in done.stdout, done.stderr


def test_kill_9_then_the_same_command_gives_the_same_bits(data, config, tmp_path):
    more = ("--num_train_epochs", "12", "--save_steps", "5", "--logging_steps", "1")
    run_script("run_glue.py", *flags(data, config, tmp_path / "whole", *more))
    out = tmp_path / "killed"
    command = [sys.executable, str(tiny.ROOT / "run_glue.py"), *map(str, flags(data, config, out, *more))]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for steps in (8, 33):
        process = subprocess.Popen(command, cwd=tiny.ROOT, env=env, stderr=subprocess.DEVNULL)
        log = out / "log.jsonl"
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= steps):
            time.sleep(0.01)
        assert process.poll() is None, "finished before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "results.json").exists()
    done = run_script("run_glue.py", *flags(data, config, out, *more))
    assert "continuing from" in done.stderr
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["eval"] == results[1]["eval"]
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 73))


def test_sigterm_saves_and_says_how_to_go_on(data, config, tmp_path):
    out = tmp_path / "out"
    more = ("--num_train_epochs", "200", "--save_steps", "100000", "--logging_steps", "1")
    command = [sys.executable, str(tiny.ROOT / "run_glue.py"), *map(str, flags(data, config, out, *more))]
    process = subprocess.Popen(
        command, cwd=tiny.ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    while process.poll() is None and not (out / "log.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the state is saved. Run the same command again" in err.splitlines()[-1] and "Traceback" not in err
    assert list((out / "checkpoints").glob("step_*"))


def refused(*args):
    done = run_script("run_glue.py", *args, check=2)
    message = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr and message.startswith("run_glue.py: error: ")
    return message


def test_bad_input_is_one_clear_line(data, config, tmp_path):
    out = tmp_path / "out"

    def tsv(name, change):
        folder = tiny.write_mnli(tmp_path / name)
        path = folder / "train.tsv"
        path.write_bytes(change(path.read_bytes()))
        return folder

    cases = {
        "no such folder": flags(tmp_path / "nowhere", config, out),
        "no column 'gold_label'": flags(tsv("column", lambda b: b.replace(b"gold_label", b"verdict", 1)), config, out),
        "line 3 has 2 tab-separated columns where 12 are due": flags(
            tsv("short", lambda b: b"\n".join([*b.split(b"\n")[:2], b"a\tb", *b.split(b"\n")[3:]])), config, out
        ),
        "unknown label 'maybe'": flags(tsv("label", lambda b: b.replace(b"neutral\n", b"maybe\n", 1)), config, out),
        "the file is empty": flags(tsv("empty", lambda b: b""), config, out),
        "is not UTF-8": flags(tsv("latin", lambda b: b.replace(b"the", b"th\xe9", 1)), config, out),
        "is not a GLUE task": [*flags(data, config, out), "--task_name", "XNLI"],
        "it looks like mnli": [*flags(data, config, out), "--task_name", "RTE"],
        "exclude each other": flags(data, config, out, "--fp16", "--bf16"),
        "0 is not a whole number from 1": flags(data, config, out, "--per_gpu_train_batch_size", "0"),
        "neither a folder here nor reachable": flags(data, "albert-base-v1", out),
        "unrecognized arguments": flags(data, config, out, "--learnin_rate", "1"),
    }
    for expected, arguments in cases.items():
        assert expected in refused(*arguments), expected
        assert not out.exists(), expected
    assert "make demo" in refused(*flags(data, "albert-base-v1", out))


def test_a_finished_folder_is_refused_and_kept(data, config, tmp_path):
    out = tmp_path / "out"
    run_script("run_glue.py", *flags(data, config, out, "--max_steps", "2"))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert "holds a finished run" in refused(*flags(data, config, out))
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    run_script("run_glue.py", *flags(data, config, out, "--max_steps", "3", "--overwrite_output_dir"))
    assert json.loads((out / "results.json").read_text())["train"]["steps"] == 3


def test_a_nan_loss_names_the_step_and_keeps_no_result(data, config, tmp_path):
    done = run_script(
        "run_glue.py",
        *flags(data, config, tmp_path / "out", "--learning_rate", "1e15", "--max_grad_norm", "0"),
        check=1,
    )
    assert "the loss is nan at step" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_help_imports_nothing_heavy():
    code = "import sys, run_glue\ntry: run_glue.main(['--help'])\nexcept SystemExit: pass\nprint('HEAVY', [m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT)
    assert "HEAVY []" in done.stdout
