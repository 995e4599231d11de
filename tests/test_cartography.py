"""Training dynamics as cartography's JSON Lines: written, read back, and what is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection import cartography
from utils.selection.dynamics import Dynamics
from utils.selection.strategies import load_inputs, select

N = 30


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny.write_mnli(folder, n_train=N, n_dev=6)
    return load_split(get_task("mnli"), "train", data_dir=folder)


def dynamics_of(examples, seed=0) -> Dynamics:
    logits = np.random.default_rng(seed).normal(size=(3, N, 3)).astype(np.float16)
    return Dynamics(logits, examples.labels, examples.label_names, [1, 2, 3], "train", examples.fingerprint)


def test_written_then_read_is_the_same(examples, tmp_path):
    dynamics = dynamics_of(examples)
    dynamics.save(tmp_path / "dynamics.npz")
    command = [sys.executable, "-m", "utils.selection.cartography", tmp_path / "dynamics.npz", tmp_path / "out"]
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "training_dynamics, 3 files" in done.stdout, done.stderr
    first = json.loads((tmp_path / "out" / "training_dynamics" / "dynamics_epoch_1.jsonl").read_text().splitlines()[4])
    assert first == {"guid": 4, "logits_epoch_1": dynamics.logits[1, 4].tolist(), "gold": int(examples.labels[4])}
    for folder in (tmp_path / "out", tmp_path / "out" / "training_dynamics"):
        again = cartography.read(folder, examples)
        np.testing.assert_array_equal(again.logits, dynamics.logits)
        assert again.epochs.tolist() == [1, 2, 3] and again.fingerprint == examples.fingerprint
    # A selection from the folder is the one from the file.
    chosen = [
        select("el2n", load_inputs(examples, dynamics_path=path), 9, 0)
        for path in (tmp_path / "out", tmp_path / "dynamics.npz")
    ]
    assert chosen[0].indices.tolist() == chosen[1].indices.tolist()
    assert len(chosen[0].provenance["dynamics"]["sha256"]) == 3


def test_what_the_format_cannot_hold_is_said(examples, tmp_path, caplog):
    cartography.write(dynamics_of(examples), tmp_path)
    assert not caplog.records
    for change in ({"mode": "eval"}, {"epochs": [0.5, 1, 1.5]}):
        caplog.clear()
        cartography.write(dataclasses.replace(dynamics_of(examples), **change), tmp_path)
        assert "neither epochs nor mode" in caplog.text


def test_an_example_that_a_snapshot_lacks_is_left_out(examples, tmp_path):
    dynamics = dynamics_of(examples)
    dynamics.logits[1, 7] = np.nan
    cartography.write(dynamics, tmp_path)
    again = cartography.read(tmp_path, examples)
    assert np.isnan(again.logits[:, 7]).all() and not np.isnan(np.delete(again.logits, 7, axis=1)).any()


def rewrite(folder, change, epochs=(0, 1, 2)):
    """Every line of the files, changed."""
    for epoch in epochs:
        path = folder / "training_dynamics" / f"dynamics_epoch_{epoch}.jsonl"
        lines = [change(json.loads(line), epoch) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_other_class_numbers_and_pair_ids_are_matched_by_what_they_name(examples, tmp_path):
    dynamics = dynamics_of(examples)
    cartography.write(dynamics, tmp_path)
    theirs = [2, 0, 1]  # our class c is their class theirs[c]

    def foreign(line, epoch):
        logits = [0.0] * 3
        for ours, z in enumerate(line[f"logits_epoch_{epoch}"]):
            logits[theirs[ours]] = z
        return {
            "guid": examples.guids[line["guid"]], f"logits_epoch_{epoch}": logits, "gold": theirs[line["gold"]],
        }  # fmt: skip

    rewrite(tmp_path, foreign)
    again = cartography.read(tmp_path, examples)
    np.testing.assert_array_equal(again.logits, dynamics.logits)
    np.testing.assert_array_equal(again.el2n(), dynamics.el2n())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line, epoch: {**line, "guid": "nobody"}, "epoch_0.jsonl: line 1: 'nobody' is no pair id"),
        (
            lambda line, epoch: {**line, "guid": line["guid"] + 1},
            "epoch_0.jsonl: line .*(another label|does not exist)",
        ),
        (lambda line, epoch: {**line, "gold": 3}, "line 1 has the logits .* and the gold label 3"),
        (lambda line, epoch: {**line, f"logits_epoch_{epoch}": [1.0, 2.0]}, "expected 3 finite logits"),
        (lambda line, epoch: {**line, f"logits_epoch_{epoch}": [1.0, 2.0, float("nan")]}, "expected 3 finite logits"),
        (lambda line, epoch: {"guid": 1}, "line 1 is no record with guid, logits_epoch_0 and gold"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(examples, tmp_path, change, said):
    cartography.write(dynamics_of(examples), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(InputError, match=said):
        cartography.read(tmp_path, examples)


def test_missing_files_are_named(examples, tmp_path):
    with pytest.raises(InputError, match=r"holds no dynamics_epoch_0.jsonl"):
        cartography.read(tmp_path, examples)
    cartography.write(dynamics_of(examples), tmp_path)
    (tmp_path / "training_dynamics" / "dynamics_epoch_1.jsonl").unlink()
    with pytest.raises(InputError, match=r"dynamics_epoch_1.jsonl is missing"):
        cartography.read(tmp_path, examples)


def test_a_label_that_no_example_has(examples, tmp_path):
    """One is what is left over; of two it would be a guess."""
    dynamics = dynamics_of(examples)
    for kept, known in ((lambda gold: gold != 1, True), (lambda gold: gold == 0, False)):
        cartography.write(dynamics, tmp_path)
        rows = np.flatnonzero(kept(examples.labels))
        for epoch in range(3):
            path = tmp_path / "training_dynamics" / f"dynamics_epoch_{epoch}.jsonl"
            lines = path.read_text().splitlines()
            path.write_text("".join(lines[row] + "\n" for row in rows))
        if known:
            again = cartography.read(tmp_path, examples)
            np.testing.assert_array_equal(again.logits[:, rows], dynamics.logits[:, rows])
        else:
            with pytest.raises(InputError, match=r"no example has the gold labels \[1, 2\]"):
                cartography.read(tmp_path, examples)


def test_huge_logits_stay_finite(examples, tmp_path):
    dynamics = dynamics_of(examples)
    cartography.write(dataclasses.replace(dynamics, logits=dynamics.logits.astype(np.float32) * 1e6), tmp_path)
    assert np.isfinite(cartography.read(tmp_path, examples).logits).all()
