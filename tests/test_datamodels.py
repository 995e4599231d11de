"""The linear datamodeling score, and the benchmark that retrains on random halves."""

import json

import numpy as np
import pytest

from benchmarks.datamodels import linear_datamodeling_scores, main
from tests import tiny
from utils.errors import InputError


def linear_datamodeling_score(score, members, margins, **options):
    return linear_datamodeling_scores({"it": score}, members, margins, **options)["it"]


@pytest.fixture
def halves():
    """60 halves of 40 examples; outputs (60, 5) of a model that adds up what each example gives to each of 5 dev examples."""
    rng = np.random.default_rng(0)
    members = np.stack([rng.permutation(40) < 20 for _ in range(60)])
    gives = rng.normal(size=(40, 5))
    return members, gives, members @ gives


def test_scores_that_add_up_to_the_outputs_are_right_and_their_opposites_wrong(halves):
    members, gives, outputs = halves
    for sign in (1, -1):
        found = linear_datamodeling_score(sign * gives, members, 3 * outputs + 7, resamples=20)
        assert found == {"each example": [sign] * 3, "whole set": [sign] * 3}


def test_one_score_for_all_dev_examples_is_scipys_spearman_of_each(halves):
    from scipy.stats import spearmanr

    members, gives, outputs = halves
    score = gives.mean(1)
    each, low, high = linear_datamodeling_score(score, members, outputs, resamples=200)["each example"]
    expected = np.mean([spearmanr(members @ score, outputs[:, z]).statistic for z in range(5)])
    assert each == pytest.approx(expected, abs=1e-4) and low < each < high and 0.2 < each < 0.9
    assert linear_datamodeling_score(score, members, outputs, resamples=20)["whole set"][0] == 1


def test_the_size_of_scores_does_not_matter(halves):
    members, gives, outputs = halves
    expected = linear_datamodeling_score(gives, members, outputs, resamples=20)
    for scale in (1e-12, 1e12):
        assert linear_datamodeling_score(scale * gives, members, outputs, resamples=20) == expected


def test_scores_that_are_all_alike_say_nothing(halves):
    members, _, outputs = halves
    for score in (np.zeros(40), np.full(40, 0.1), np.full(40, 1e9 / 3)):
        found = linear_datamodeling_score(score, members, outputs, resamples=20)
        assert found == {"each example": [None] * 3, "whole set": [None] * 3}


def test_scores_that_know_nothing_are_near_zero(halves):
    members, _, outputs = halves
    for seed in range(5):
        noise = np.random.default_rng(seed + 1).normal(size=(40, 5))
        _, low, high = linear_datamodeling_score(noise, members, outputs, resamples=200)["each example"]
        assert low < 0.1 and high > -0.1


def test_a_small_experiment_goes_on_and_refuses_other_flags(tmp_path, capsys):
    tiny.write_mnli(tmp_path / "data", n_train=60, n_dev=24)
    tiny.write_config(tmp_path / "model", "bert")

    def run(*more):
        words = f"--config_name {tmp_path}/model --tokenizer_name {tmp_path}/model --data_dir {tmp_path}/data --pool_size 30 "
        words += (
            f"--num_train_epochs 2 --learning_rate 1e-3 --max_eval_samples 10 --use_cpu --output_dir {tmp_path}/out "
        )
        words += f"--output {tmp_path}/found.json --per_device_train_batch_size 8"
        main([*words.split(), *map(str, more)])
        return json.loads((tmp_path / "found.json").read_text())

    first = run("--halves", 3, "--jobs", 2)
    assert first["dev_examples"] == 10 and len(first["scores"]) == 12
    assert all(-1 <= value <= 1 for by in first["scores"].values() for numbers in by.values() for value in numbers)
    halves = [json.loads((tmp_path / "out" / "runs" / f"{half}" / "run.json").read_text()) for half in range(3)]
    assert [facts["arguments"]["seed"] for facts in halves] == [0, 1, 2]
    assert not list((tmp_path / "out" / "runs").glob("*/model.safetensors"))
    before = (tmp_path / "out" / "runs" / "0" / "results.json").stat().st_mtime_ns
    assert run("--halves", 4)["halves"] == 4
    assert (tmp_path / "out" / "runs" / "0" / "results.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another experiment"):
        run("--halves", 3, "--warmup_ratio", 0.1)
    with pytest.raises(InputError, match="--pool_size 500: the data has 60"):
        run("--halves", 3, "--pool_size", 500)
    for more in (("--halves", 2), ("--objective", "poe")):
        with pytest.raises(SystemExit):
            run(*more)
    capsys.readouterr()
