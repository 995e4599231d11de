"""Labels by name, never by position."""

import itertools

import numpy as np
import pytest

from tests import tiny
from utils.data import class_names as labels
from utils.errors import InputError
from utils.flags import ModelSettings
from utils.models.classifier import load_classifier, save_classifier

MNLI = ("contradiction", "entailment", "neutral")


@pytest.mark.parametrize("spelling", ["entailment", "Entailment", "ENTAIL", "entailed"])
def test_synonyms_of_entailment(spelling):
    assert labels.canonical(spelling) == "entailment"


@pytest.mark.parametrize("spelling", ["non-entailment", "not_entailment", "Not Entailment", "nonentailment"])
def test_synonyms_of_not_entailment(spelling):
    assert labels.canonical(spelling) == "not_entailment"


def test_label_k_states_nothing():
    assert labels.stated_names({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}) is None
    assert labels.stated_names({"1": "neutral", "0": "entailment", "2": "contradiction"}) == (
        "entailment",
        "neutral",
        "contradiction",
    )
    assert labels.stated_names(None) is None


@pytest.mark.parametrize("names", list(itertools.permutations(MNLI)))
def test_columns_find_each_label_by_name(names):
    columns = labels.columns_of(MNLI, names)
    assert [names[c] for c in columns] == list(MNLI)


def test_other_classes_are_refused():
    with pytest.raises(InputError, match="positive"):
        labels.columns_of(MNLI, ("positive", "negative", "neutral"))
    with pytest.raises(InputError, match="exactly once"):
        labels.parse_order("entailment,entailment,neutral", MNLI)


@pytest.mark.parametrize("names", list(itertools.permutations(MNLI)))
def test_labelled_data_shows_the_order(names):
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 500)
    answered = np.where(rng.random(500) < 0.75, gold, rng.integers(0, 3, 500))
    outputs = np.array([names.index(MNLI[k]) for k in answered])
    assert labels.detect_order(outputs, gold, MNLI, where="dev") == names


def test_chance_settles_nothing():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="--label_order"):
        labels.detect_order(rng.integers(0, 3, 500), rng.integers(0, 3, 500), MNLI, where="dev")


@pytest.mark.parametrize(
    ("first", "second", "n", "settled"),
    [
        (0.60, 0.50, 100, False),  # four standard errors are 28 points
        (0.60, 0.50, 700, False),  # 10.7 points
        (0.60, 0.50, 900, True),  # 9.4 points
        (0.90, 0.10, 10, False),  # 89 points
        (0.54, 0.50, 1_000_000, False),  # less than 5 points, however certain
        (0.56, 0.50, 1_000_000, True),
    ],
)
def test_an_order_wins_by_more_than_chance_could(first, second, n, settled):
    order = ("neutral", "entailment", "contradiction")
    assert labels.clear_winner([(order, first), (MNLI, second)], n) == (order if settled else None)


def test_warnings_come_only_where_something_looks_wrong():
    gold = np.random.default_rng(0).integers(0, 3, 300)
    assert labels.evaluation_warnings(gold, gold, MNLI) == []
    (warning,) = labels.evaluation_warnings(np.array([1, 0, 2])[gold], gold, MNLI)
    assert "contradiction -> entailment" in warning
    (warning,) = labels.evaluation_warnings(np.zeros(300, dtype=int), gold, MNLI)
    assert "every example was called contradiction" in warning


def test_nli_labels_from_names_or_number():
    assert labels.nli_labels(("ENTAILMENT", "neutral", "contradict"), 3) == MNLI
    assert labels.nli_labels(("not_entailment", "entailment"), 2) == ("entailment", "not_entailment")
    assert labels.nli_labels(None, 3) == MNLI and len(labels.nli_labels(None, 2)) == 2
    with pytest.raises(InputError, match="positive"):
        labels.nli_labels(("negative", "positive"), 2)


def test_a_stated_order_holds_for_a_new_layer_and_never_against_the_names_of_a_checkpoint(tmp_path):
    config = str(tiny.write_config(tmp_path / "config"))
    new = load_classifier(MNLI, ModelSettings(config_name=config, label_order="neutral,entailment,contradiction"))
    assert list(new.model.config.id2label.values()) == ["neutral", "entailment", "contradiction"]
    assert new.columns.tolist() == [2, 1, 0] and new.named
    save_classifier(new, tmp_path / "saved")
    saved = {"model_name_or_path": str(tmp_path / "saved")}
    for order in (None, "neutral,entail,contradiction"):
        assert load_classifier(MNLI, ModelSettings(**saved, label_order=order)).columns.tolist() == [2, 1, 0]
    with pytest.raises(InputError, match="saved itself names its outputs neutral,entailment,contradiction; leave"):
        load_classifier(MNLI, ModelSettings(**saved, label_order="contradiction,entailment,neutral"))
