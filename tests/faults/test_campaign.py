"""A short campaign of faults. `make faults` runs a long one; its world is made here of the stages that are quick to run."""

import numpy as np
import pytest

from tests import forked
from tests.faults import campaign as faults
from tests.faults.world import STAGES, World

QUICK = ("corpus", "challenge", "train", "embed", "ambiguous")
ROUNDS = 15


def test_a_short_campaign_finds_nothing_bad(tmp_path, capsys):
    rounds = faults.campaign(tmp_path, range(ROUNDS), seed=14, stages=QUICK)
    assert [found for found in rounds if found["outcome"] in faults.BAD] == [], capsys.readouterr().out
    assert len(rounds) == ROUNDS and {found["kind"] for found in rounds} == set(faults.KINDS)


@pytest.mark.parametrize(
    ("status", "stderr", "outcome"),
    [
        (0, "12:00:00 INFO training\n", "ended"),
        (2, "12:00:00 INFO training\nrun_glue.py: error: x\n", "refused"),
        (1, "run_glue.py: failed: disk full\n", "refused"),
        (1, "run_glue.py: error: x\n", "unclear"),
        (2, "run_glue.py: error: x\nmore\n", "unclear"),
        (2, "", "unclear"),
        (1, "Traceback (most recent call last):\nKeyError: 1\n", "traceback"),
        (-11, "", "traceback"),
    ],
)
def test_the_ends_are_told_apart(status, stderr, outcome):
    assert faults.judge(forked.Finished(status, "", stderr), STAGES["train"]) == outcome


def test_other_results_and_lost_files_are_noticed(tmp_path):
    """The judge of the campaign, on faults that are made here: other results without a word, a lost input."""
    world = World(tmp_path, ("corpus",))
    world.expected("corpus")
    world.fresh(STAGES["corpus"])
    done, before = world.run(STAGES["corpus"], check=0), world.files(STAGES["corpus"])
    assert faults.compare(world, "corpus", done, before) == "same"
    path = world.place / "data" / "train.tsv"
    path.write_text(path.read_text() + "\n")
    assert faults.compare(world, "corpus", done, {}) == "silent" and world.different == ["train.tsv"]
    assert faults.compare(world, "corpus", done, {}, free=True) == "other"
    assert faults.compare(world, "corpus", done, before) == "lost"


@pytest.mark.parametrize("how", ["npy", "npz"])
def test_the_bombs_would_go_off(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb").write_bytes(faults._bomb(how))
    loaded = np.load("bomb", allow_pickle=True)
    if how == "npz":
        loaded["indices"]
    assert (tmp_path / "harm").exists()
