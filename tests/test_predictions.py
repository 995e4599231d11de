"""predictions_*.tsv: what is written is read again, and other files are named."""

import numpy as np
import pytest

from utils.data.predictions import read_predictions, write_predictions
from utils.data.tasks import get_task
from utils.errors import InputError


def test_what_is_written_is_read_again(tmp_path):
    path, task = tmp_path / "predictions_dev.tsv", get_task("MNLI")
    probabilities = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    write_predictions(path, task, np.array([3, 7]), np.array([1, 0]), np.array([2, 2]), probabilities)
    found = read_predictions(path)
    assert found.index.tolist() == [3, 7] and found.index.dtype == np.int64
    assert found.gold == [task.labels[1], task.labels[0]] and found.answers == [task.labels[2]] * 2
    assert found.p_gold.tolist() == [0.3, 0.7] and found.one_answer


def test_of_a_regression_there_are_no_probabilities(tmp_path):
    path = tmp_path / "predictions_dev.tsv"
    write_predictions(
        path, get_task("STS-B"), np.arange(2), np.array([1.25, 5.0]), np.array([1.5, 4.0]), np.ones((2, 1))
    )
    found = read_predictions(path)
    assert found.gold == ["1.25", "5"] and found.answers == ["1.500000", "4.000000"]
    assert np.isnan(found.p_gold).all() and not found.one_answer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "predictions.tsv: expected index, gold label"),
        ("index\tgold\tprediction\n", "predictions.tsv: expected index, gold label"),
        ("premise\tgold\tprediction\n1\ta\ta\n", "predictions.tsv: expected index, gold label"),
        ("index\tgold\tprediction\n1\ta\ta\n2\ta\n", "predictions.tsv: line 3: expected index"),
        ("index\tgold\tprediction\tp_a\n1\ta\ta\t0.5\n2\ta\ta\n", "predictions.tsv: line 3: expected index"),
        ("index\tgold\tprediction\tp_a\tp_b\n1\ta\ta\t0.\n", "predictions.tsv: line 2: expected index"),
        (f"index\tgold\tprediction\n{2**70}\ta\ta\n", "predictions.tsv: line 2: expected index"),
        ("index\tgold\tprediction\tp_a\n1\tb\ta\t0.5\n", "predictions.tsv: line 2: expected index"),
    ],
)
def test_another_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "predictions.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "predictions.tsv")
    with pytest.raises(InputError, match=r"run_glue.py --do_eval writes"):
        read_predictions(tmp_path / "none.tsv")
