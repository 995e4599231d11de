"""Selection: the file, its checks, budgets, and the weight formulas against enumeration."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest

from utils.errors import InputError
from utils.files import write_npz
from utils.selection.selection import (
    Selection,
    budget,
    effective_sample_size,
    weights_with_replacement,
    weights_without_replacement,
)


@pytest.fixture
def selection():
    return Selection(
        np.array([4, 0, 4]), np.array([1.5, 0.5, 1.0]), 6, "abc", ordered=True, scores=np.arange(6.0),
        provenance={"method": "hard", "seed": np.int64(3), "path": "x"},
    )  # fmt: skip


class Rows:
    """As much of Examples as `check` reads."""

    source = "train.tsv"

    def __init__(self, n, fingerprint):
        self.n, self.fingerprint = n, fingerprint

    def __len__(self):
        return self.n


def test_round_trip(selection, tmp_path):
    selection.save(tmp_path / "selection.npz")
    back = Selection.load(tmp_path / "selection.npz")
    for name in ("indices", "weights", "scores"):
        assert (getattr(back, name) == getattr(selection, name)).all()
        assert getattr(back, name).dtype == getattr(selection, name).dtype
    assert (back.n_total, back.fingerprint, back.ordered) == (6, "abc", True)
    assert back.provenance == {"method": "hard", "seed": 3, "path": "x"} and back.digest == selection.digest


def test_nothing_is_pickled(selection, tmp_path):
    selection.save(tmp_path / "selection.npz")
    with np.load(tmp_path / "selection.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_the_same_choice_is_the_same_file(selection, tmp_path):
    for name in ("a", "b"):
        selection.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_a_damaged_file_is_one_line(selection, tmp_path, kept):
    path = tmp_path / "selection.npz"
    selection.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"selection\.npz") as error:
        Selection.load(path)
    assert "\n" not in str(error.value)


def test_missing_or_another_kind_of_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Selection.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", something=np.arange(3))
    with pytest.raises(InputError, match="not \\['indices'"):
        Selection.load(tmp_path / "other.npz")


ABOUT = {"n_total": 6, "fingerprint": "abc", "ordered": False, "provenance": {}}


@pytest.mark.parametrize(
    "about, indices, weights, said",
    [
        (ABOUT, [0, 6], [1, 1], "row 6 is outside the split of 6 rows"),
        (ABOUT, [0, -1], [1, 1], "row -1 is outside"),
        (ABOUT, [0, 1], [1, np.nan], "weights must be finite"),
        (ABOUT, [0, 1], [1, -1], "weights must be finite, not negative"),
        (ABOUT, [[0, 1]], [[1, 1]], "indices"),
        (ABOUT, [0.0, 1.5], [1, 1], "indices are float64"),
        (ABOUT | {"n_total": "six"}, [0], [1], "not a Selection"),
        (ABOUT | {"ordered": 1}, [0], [1], "not a Selection: ordered is 1, not of the kind bool"),
        (ABOUT | {"fingerprint": None}, [0], [1], "not a Selection: fingerprint is None"),
        (ABOUT, [0], ["1"], "weights are <U1, not numbers"),
        ({"n_total": 6}, [0], [1], "not a Selection .*'fingerprint'"),
        ([6, "abc"], [0], [1], "not a Selection"),
        ("{", [0], [1], "not a Selection"),
    ],
)
def test_a_whole_file_with_unusable_contents_names_the_file(tmp_path, about, indices, weights, said):
    text = about if isinstance(about, str) else json.dumps(about)
    path = tmp_path / "selection.npz"
    write_npz(path, indices=indices, weights=weights, about=np.frombuffer(text.encode(), dtype=np.uint8))
    with pytest.raises(InputError, match=rf"^{path}: .*{said}") as error:
        Selection.load(path)
    assert "\n" not in str(error.value)


def test_repeats_count_as_often_as_they_are_chosen(tmp_path):
    Selection([3, 3, 1, 3], [1, 1, 2, 0], 4, "abc").save(tmp_path / "selection.npz")
    back = Selection.load(tmp_path / "selection.npz")
    assert len(back) == 4 and back.indices.tolist() == [3, 3, 1, 3] and back.weights.tolist() == [1, 1, 2, 0]
    assert back.scores is None and back.provenance == {}


def test_a_mask_is_no_list_of_rows():
    """As numbers it would be rows 0 and 1 again and again, with nothing out of range."""
    with pytest.raises(InputError, match=r"indices are bool.*np\.flatnonzero"):
        Selection(np.array([True, False, True]), np.ones(3), 3, "abc")


def test_the_digest_is_of_rows_weights_and_order_alone():
    base = Selection([0, 1], [1, 2], 6, "abc")
    assert base.digest == Selection([0, 1], [1, 2], 6, "abc", scores=np.ones(6), provenance={"seed": 1}).digest
    others = [Selection([1, 0], [1, 2], 6, "abc"), Selection([0, 1], [2, 1], 6, "abc"), Selection([0], [1], 6, "abc")]
    others.append(Selection([0, 1], [1, 2], 6, "abc", ordered=True))
    assert len({base.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("rows", [Rows(7, "abc"), Rows(6, "other")])
def test_made_for_other_data_is_refused(selection, rows):
    selection.check(Rows(6, "abc"))
    with pytest.raises(InputError, match=r"made for other data.*select again"):
        selection.check(rows, path="selection.npz")


def test_what_is_refused_names_both_sides(selection):
    with pytest.raises(InputError) as error:
        selection.check(Rows(7, "other"), path="chosen.npz")
    message = str(error.value)
    assert message.startswith("chosen.npz: ") and "\n" not in message
    assert all(part in message for part in ("6 rows", "abc", "train.tsv", "7 rows", "other"))


@pytest.mark.parametrize(
    "indices, weights",
    [([], []), ([0, 6], [1, 1]), ([-1], [1]), ([0], [-1]), ([0], [np.nan]), ([0], [np.inf]), ([0, 1], [1]), ([0], [0])],
)
def test_parts_that_do_not_fit_are_refused(indices, weights):
    with pytest.raises(InputError, match="selection: "):
        Selection(np.array(indices), np.array(weights), 6, "abc")


def test_scores_are_of_all_rows():
    with pytest.raises(InputError, match="scores for 6 rows"):
        Selection(np.array([0]), np.ones(1), 6, "abc", scores=np.zeros(1))


def test_take_keeps_weights_order_and_origin(selection):
    part = selection.take([2, 1], max_train_samples=2)
    assert part.indices.tolist() == [4, 0] and part.weights.tolist() == [1.0, 0.5] and part.ordered
    assert part.provenance == selection.provenance | {"max_train_samples": 2}


def test_everything():
    everything = Selection.everything(5, "abc")
    assert everything.indices.tolist() == list(range(5)) and everything.effective_sample_size == 5


@pytest.mark.parametrize("n", [10, 31_601, 392_702])
@pytest.mark.parametrize("pct", ["0.1", "0.137", "0.5", "0.999", "1"])
def test_budget_is_the_nearest_whole_number(n, pct):
    m = budget(n, data_pct=float(pct))
    assert isinstance(m, int) and abs(m - Fraction(pct) * n) <= Fraction(1, 2)


@pytest.mark.parametrize(
    "n, pct, m",
    [(392_702, 0.1, 39_270), (392_702, 1 / 3, 130_901), (31_601, 1 / 3, 10_534), (11, 0.05, 1), (10, 1.0, 10)],
)
def test_budgets_by_hand(n, pct, m):
    assert budget(n, data_pct=pct) == m


@pytest.mark.parametrize("m", [1, 7, 10])
def test_a_number_of_examples_is_taken_as_it_is(m):
    assert budget(10, num_examples=m) == m


@pytest.mark.parametrize(
    "options",
    [{}, {"data_pct": 0.1, "num_examples": 1}, {"data_pct": 0.0}, {"data_pct": -0.1}, {"data_pct": float("nan")}, {"data_pct": 10}, {"data_pct": 0.01}, {"num_examples": 0}, {"num_examples": 11}],
)  # fmt: skip
def test_budgets_of_nothing_or_more_than_everything_are_refused(options):
    with pytest.raises(InputError):
        budget(10, **options)


def test_effective_sample_size():
    assert effective_sample_size([1, 1, 1]) == pytest.approx(3)
    assert effective_sample_size([1, 0, 0]) == pytest.approx(1)
    assert effective_sample_size([2, 2]) == effective_sample_size([1, 1])
    assert effective_sample_size([3, 1]) == pytest.approx(16 / 10)


def test_weights_with_replacement_are_unbiased_by_enumeration():
    loss, p = np.array([3.0, -1.0, 10.0]), np.array([0.5, 0.2, 0.3])
    weights = weights_with_replacement(p, 3).astype(float)
    expected = sum(
        np.prod(p[list(draw)]) * np.mean(weights[list(draw)] * loss[list(draw)])
        for draw in itertools.product(range(3), repeat=2)
    )
    assert expected == pytest.approx(loss.mean(), rel=1e-6)


def test_weights_without_replacement_are_unbiased_by_enumeration():
    """Independent inclusion with probability pi, the sum divided by the expected sample size."""
    loss, pi = np.array([3.0, -1.0, 10.0, 4.0]), np.array([0.9, 0.2, 1.0, 0.4])
    weights, m = weights_without_replacement(pi, 4).astype(float), pi.sum()
    expected = 0.0
    for included in itertools.product([0, 1], repeat=4):
        chosen = np.array(included, dtype=bool)
        probability = np.prod(np.where(chosen, pi, 1 - pi))
        expected += probability * (weights * loss)[chosen].sum() / m
    assert expected == pytest.approx(loss.mean(), rel=1e-6)


def test_an_example_that_cannot_be_drawn_has_weight_zero():
    assert weights_with_replacement(np.array([1.0, 0.0]), 2).tolist() == [0.5, 0.0]
    assert weights_without_replacement(np.array([1.0, 0.0]), 2).tolist() == [0.5, 0.0]
