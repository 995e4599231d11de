"""Stages are done again where what they read has changed, and by the recipe of the run that uses them."""

import dataclasses

import numpy as np
import pytest

import cluster_embeddings
from utils.command_line import ArgumentParser
from utils.flags import RunSettings
from utils.selection.ingredients import InputMaker, MakerSettings
from utils.selection.selection import Selection

N = 12


class Stages(InputMaker):
    """Its stages leave files without content and are written down in `done`; shallow models are wrong of every third row."""

    done: list

    def _execute(self, words):
        out = self.folder / words[words.index("--output_dir") + 1].rsplit("/", 1)[-1]
        out.mkdir(parents=True, exist_ok=True)
        if words[0] == "run_glue.py":
            (out / "results.json").write_text("{}")
        else:
            for kind in ("cls_embeddings", "logits"):  # get_embeddings.py --logits writes both
                np.save(out / f"{kind}_mnli_train.npy", np.zeros((N, 3), dtype=np.float32))
                (out / f"{kind}_mnli_train.json").write_text("{}")
        self.done.append((out.name, words))

    def _weights(self):
        return np.where(np.arange(N) % 3, 1.0, self.making.crossfit_weight)


@pytest.fixture
def stages(tmp_path):
    settings = RunSettings(
        model_name_or_path=str(tmp_path / "model"), task_name="mnli", output_dir=str(tmp_path / "out"), do_train=True,
        per_device_train_batch_size=2,
    )  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = []

    def make(changes=(), **making):
        own = dataclasses.replace(settings, **dict(changes))
        maker = Stages(own, MakerSettings(**making), seed=0, n=N, fingerprint="f")
        done.clear()
        maker.done = done
        return maker

    return make


def chosen(*rows) -> Selection:
    return Selection(np.array(rows), np.ones(len(rows)), N, "f")


def names(maker) -> list[str]:
    return [name for name, words in maker.done]


def test_a_teacher_is_trained_again_for_other_rows(stages):
    for rows, expected in [((0, 1), 2), ((0, 1), 0), ((5, 6), 2)]:
        maker = stages()
        maker.teacher_logits(chosen(*rows))
        assert len(maker.done) == expected, rows


def test_a_teacher_takes_as_many_steps_as_its_student(stages):
    maker = stages({"max_steps": 30})
    maker.teacher_logits(chosen(0, 1, 2))
    words = maker.done[0][1]
    assert words[words.index("--max_steps") + 1] == "30"
    assert sum(maker.epochs.values()) == pytest.approx(30 / 2 * 3 / N + 1 / 3)  # 15 epochs of 3 rows; a forward pass


def test_halves_are_trained_again_with_other_weights(stages):
    for weight, expected in [(50.0, 4), (50.0, 0), (1.0, 4)]:
        maker = stages(crossfit_weight=weight)
        maker.held_out()
        assert len(maker.done) == expected, weight


def test_a_proxy_run_is_repeated_where_its_first_weights_changed(stages, tmp_path):
    maker = stages()
    maker.proxy_run()
    assert names(maker) == ["proxy_run"]
    (tmp_path / "model" / "model.safetensors").write_text("others")
    maker = stages()
    maker.proxy_run()
    assert names(maker) == ["proxy_run"]
    maker = stages()
    maker.proxy_run()
    assert names(maker) == []


def test_embeddings_leave_the_logits_where_they_are(stages):
    maker = stages(selector_model="model")
    maker._auto_pooling = "cls"
    logits = maker.logits()
    embeddings = maker.embeddings("cls")
    assert logits.exists() and embeddings.exists() and len(maker.done) == 2


def test_clusters_are_made_with_the_cache_of_the_run(stages):
    maker = stages({"cache_dir": "cache"})
    maker.given = {"embedding_path": "embeddings"}
    maker.clusters()
    (_, words) = maker.done[0]
    assert words[0] == "cluster_embeddings.py" and words[words.index("--cache_dir") + 1] == "cache"
    parser = ArgumentParser()
    cluster_embeddings.add_args(parser)
    assert parser.parse_args([*words[1:]]).cache_dir == "cache"
