"""The study's own arms: variants of strategies, in a plugin."""

import shutil
import subprocess

import numpy as np
import pytest

from study import collect
from tests import tiny
from tests.conformance.test_coverage import cloud, inputs_of
from utils.flags import OBJECTIVES
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection
from utils.selection.strategies import STRATEGIES, select
from utils.selection.strategies.registry import load_plugin


@pytest.fixture(scope="module")
def arms():
    load_plugin(tiny.ROOT / "study" / "arms.py")
    yield
    for name in ("ambiguous_mixed", "hard_balanced", "jtt_random"):
        STRATEGIES.pop(name, None)


def test_the_arms_are_variants_of_strategies(arms):
    inputs = inputs_of(cloud(300, 4, 0))
    mixed = select("ambiguous_mixed", inputs, 30, 0).indices
    assert set(mixed) == set(select("ambiguous", inputs, 30, 0, mix_easy=0.1).indices)
    balanced = select("hard_balanced", inputs, 30, 0).indices
    whole, chosen = (np.bincount(inputs.labels[rows], minlength=3) for rows in (slice(None), balanced))
    assert np.abs(chosen - whole / 10).max() < 1
    hardest = select("hard", inputs, 300, 0).indices
    for label in range(3):
        own = [row for row in hardest if inputs.labels[row] == label][: chosen[label]]
        assert set(own) == set(balanced[inputs.labels[balanced] == label])


def test_jtt_random_is_the_random_subset_with_the_weights_of_jtt(arms):
    inputs = inputs_of(cloud(300, 4, 0))
    chosen = select("jtt_random", inputs, 30, 5)
    assert (chosen.indices == select("random", inputs, 30, 5).indices).all()
    wrong = select("jtt", inputs, 300, 5, jtt_lambda=2)  # everything, with a weight on what was wrong
    heavy = set(wrong.indices[wrong.weights > 1])
    assert 0 < len(heavy & set(chosen.indices)) < 30
    expected = np.array([5.0 if row in heavy else 1.0 for row in chosen.indices])
    np.testing.assert_allclose(chosen.weights, expected / expected.mean(), rtol=1e-6)


def test_a_run_with_other_settings_does_not_replace_the_one_that_others_are_paired_with(capsys):
    recorded = {
        "a": {"precision": "float32", "pool": "10"},
        "b": {"precision": "bf16", "pool": "10", "learning_rate": ""},
        "d": {"precision": "bf16", "pool": "10", "learning_rate": "0.0002"},
    }
    rows = [{"run": name, "precision": "bf16", "pool": 10, "learning_rate": "0.0001"} for name in "abcd"]
    assert [row["run"] for row in collect.of_same_settings(rows, recorded)] == ["b", "c"]
    said = capsys.readouterr().err
    assert said == (
        "a: precision is bf16, recorded is float32; left out\n"
        "d: learning_rate is 0.0001, recorded is 0.0002; left out\n"
    )


def test_collected_rows_replace_earlier_ones_and_may_have_other_columns():
    before = [{"run": "a", "mnli": "0.5", "x": "1"}, {"run": "b", "mnli": "0.6", "x": "2"}]
    rows = collect.merged(before, [{"run": "a", "mnli": "0.7"}, {"run": "c", "mnli": "0.8", "x": "", "y": "3"}])
    assert rows == [
        {"run": "a", "mnli": "0.7", "x": "", "y": ""},
        {"run": "b", "mnli": "0.6", "x": "2", "y": ""},
        {"run": "c", "mnli": "0.8", "x": "", "y": "3"},
    ]


def test_the_confidence_of_chosen_examples_is_that_of_the_proxy_run(tmp_path):
    logits = np.zeros((2, 3, 2), dtype=np.float16)
    logits[:, 1, 0] = np.log(3)  # 3/4 for the gold label; the others have 1/2
    Dynamics(logits, np.zeros(3, dtype=np.int64), ("a", "b"), np.arange(2), "eval", "f").save(tmp_path / "dynamics.npz")
    Selection(np.array([1, 2]), np.ones(2), 3, "f").save(tmp_path / "selection.npz")
    assert collect.confidence(tmp_path / "selection.npz", tmp_path / "dynamics.npz") == pytest.approx(0.625, abs=1e-4)
    assert collect.confidence(tmp_path / "selection.npz", tmp_path / "none.npz") == ""
    assert collect.confidence(tmp_path / "none.npz", tmp_path / "dynamics.npz") == ""


def test_the_script_names_flags_that_exist(tmp_path):
    text = (tiny.ROOT / "study" / "run.sh").read_text()
    assert shutil.which("bash") and subprocess.run(["bash", "-n", tiny.ROOT / "study" / "run.sh"]).returncode == 0
    words = text.split("arms=")[1].split('"')[1].split()
    others = {"rs2", "ambiguous_mixed", "hard_balanced", "jtt_random", *OBJECTIVES}
    assert len(words) == 19 and not set(words) - set(STRATEGIES) - others
