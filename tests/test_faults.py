"""Damaged or foreign files are noticed: refused in one line, or made again with a word. Never used in silence."""

import argparse
import importlib
import io
import json
import logging
import shutil
import zipfile

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import importance_sampling_mnli
from hans import generate as hans_generate
from tests import tiny
from utils.data.tokenizer import load_tokenizer, save_tokenizer
from utils.data.tokens import encode
from utils.errors import InputError, RunFailed
from utils.files import folder_lock, read_npz, write_npz
from utils.flags import InferenceSettings, ModelSettings
from utils.models import distributed
from utils.models.classifier import load_classifier
from utils.models.session import open_session
from utils.selection.clusters import Clusters
from utils.selection.embedding_writer import EmbeddingWriter


def write_checkpoint(folder, family="bert"):
    """A classifier with random weights and MNLI's class names, as a checkpoint folder."""
    path = tiny.write_config(folder, family)
    names = dict(enumerate(tiny.LABELS))
    config = transformers.AutoConfig.from_pretrained(path, id2label=names, label2id={v: k for k, v in names.items()})
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def checkpoint(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def load(folder, *, need_head=True):
    return load_classifier(tiny.LABELS, ModelSettings(model_name_or_path=str(folder)), need_head=need_head)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


# ---------------------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_without_tokenizer_files_is_refused(checkpoint):
    load(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        load(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(checkpoint, value):
    change_weights(checkpoint, lambda w: w["bert.encoder.layer.0.output.dense.weight"][3].fill_(value))
    with pytest.raises(InputError, match=r"NaN or infinity among its weights \(bert.encoder.layer.0.output"):
        load(checkpoint)


def test_logits_that_overflow_are_no_predictions(checkpoint):
    """Weights may be finite and their products not: argmax would call every such example class 0."""
    change_weights(checkpoint, lambda w: (w["classifier.weight"].fill_(1e38), w["bert.pooler.dense.bias"].fill_(9.0)))
    settings = InferenceSettings(model_name_or_path=str(checkpoint), cache_dir=str(checkpoint / "cache"))
    session = open_session(tiny.LABELS, settings, distributed.Processes(0, 1, torch.device("cpu")), need_head=True)
    data = session.encode_texts((["the dog"] * 2, ["a cat"] * 2), fingerprint="f")
    with pytest.raises(RunFailed, match="2 of 2 examples are NaN or infinite, the first is row 0"):
        session.predict(data)


@pytest.mark.parametrize("lost", ["bert.pooler.dense.weight", "classifier.bias", "classifier.weight"])
def test_a_missing_part_of_the_head_is_refused_in_evaluation_and_named_in_training(checkpoint, lost, caplog):
    change_weights(checkpoint, lambda w: w.pop(lost))
    with pytest.raises(InputError, match=f"holds no classifier for 3 classes.*{lost}"):
        load(checkpoint)
    with caplog.at_level(logging.WARNING):
        load(checkpoint, need_head=False)
    assert f"does not hold {lost}: they start with random values" in caplog.text


@pytest.mark.parametrize("name", ["bert.pooler.dense.bias", "classifier.bias"])
def test_a_part_of_another_shape_is_refused(checkpoint, name):
    change_weights(checkpoint, lambda w: w.update({name: w[name][:-1].clone()}))
    with pytest.raises(InputError, match=f"weights do not fit its config .{name}"):
        load(checkpoint, need_head=False)


def change_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-200])


def as_pickle(make):
    """The weights as a pytorch_model.bin of what `make` turns them into."""

    def change(folder):
        path = folder / "model.safetensors"
        torch.save(make(load_file(path)), folder / "pytorch_model.bin")
        path.unlink()

    return change


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


UNUSABLE = {
    "weights cut": (cut("model.safetensors"), "cannot be loaded as AutoModel"),
    "tokenizer cut": (cut("tokenizer.json"), "cannot be loaded as AutoTokenizer"),
    "config cut": (cut("config.json"), "cannot be loaded as AutoConfig"),
    "nested config": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "RecursionError"),
    "fewer layers": (change_config(num_hidden_layers=1), "a smaller model than its weights"),
    "no heads": (change_config(num_attention_heads=0), "ZeroDivisionError"),
    "huge vocabulary": (change_config(vocab_size=10**13), "cannot be loaded as AutoModel"),
    "unknown activation": (change_config(hidden_act="none"), "KeyError 'none'"),
    "class numbers": (change_config(id2label={"a": "b"}), "invalid literal"),
    "foreign model": (change_config(model_type="roberta"), "encoder weights are missing"),
    "own code": (change_config(model_type="own", auto_map={"AutoConfig": "own.Config"}), "custom code"),
    "pickle of a list": (as_pickle(lambda weights: [1, 2]), "cannot be loaded as AutoModel"),
    "index of nothing": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.safetensors.index.json"),
        "cannot be loaded as AutoModel",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_checkpoint_is_one_line(checkpoint, name):
    change, message = UNUSABLE[name]
    change(checkpoint)
    with pytest.raises(InputError, match=message):
        load(checkpoint)


@pytest.mark.parametrize("name", ["foo bar", "a/b c", "-x"])
def test_what_cannot_be_a_hub_name_is_said(name):
    with pytest.raises(InputError, match="not the form of a hub name"):
        load(name)


def test_a_pickle_of_tensors_is_read_and_said(checkpoint, caplog):
    as_pickle(dict)(checkpoint)
    with caplog.at_level(logging.INFO):
        load(checkpoint)
    assert caplog.text.count("restricted unpickler") == 1


def test_a_hostile_pickle_is_refused_and_does_nothing(checkpoint, tmp_path):
    as_pickle(lambda weights: {**weights, "more": Hostile(tmp_path / "harm")})(checkpoint)
    with pytest.raises(InputError, match="so it was not read"):
        load(checkpoint)
    assert not (tmp_path / "harm").exists()


# ---------------------------------------------------------------------------------------------------------- token cache
COLUMNS = (["the dog sees a cat"] * 9, ["a cat sleeps"] * 9)


def tokens(tokenizer, folder):
    data = encode(COLUMNS, tokenizer, fingerprint="f", max_length=6, segments=True, cache_dir=folder)
    return np.array(data.input_ids), np.array(data.offsets), np.array(data.token_type_ids)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", ["input_ids.npy", "offsets.npy", "token_type_ids.npy", "about.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_token_cache_is_made_again_with_a_word(whole, tmp_path, name, damage, caplog):
    tokenizer = load_tokenizer(str(whole))
    expected = tokens(tokenizer, tmp_path)
    (path,) = tmp_path.glob(f"encoded/*/{name}")
    DAMAGE[damage](path)
    again = tokens(tokenizer, tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(again, expected, strict=True))
    assert "tokenising again" in caplog.text
    caplog.clear()
    tokens(tokenizer, tmp_path)
    assert not caplog.text


def test_the_cache_tells_truncation_sides_apart(whole, tmp_path):
    tokenizer = load_tokenizer(str(whole))
    right, *_ = tokens(tokenizer, tmp_path)
    tokenizer.truncation_side = "left"
    left, *_ = tokens(tokenizer, tmp_path)
    assert not np.array_equal(right, left)


def test_a_saved_tokenizer_does_not_depend_on_what_was_in_the_cache(whole, tmp_path):
    for name in ("cold", "warm"):
        tokenizer = load_tokenizer(str(whole))
        tokens(tokenizer, tmp_path / "cache")
        save_tokenizer(tokenizer, tmp_path / name, segments=True)
    cold, warm = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("cold", "warm"))
    assert cold == warm and json.loads(cold)["truncation"] is None


# ------------------------------------------------------------------------------------------------------- output folders
def run(script, *argv):
    """Call a script's `main` in this process."""
    importlib.import_module(script).main([str(word) for word in argv])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


GENERATORS = {
    "demo.generate": (["--num_train", 9, "--num_dev", 3], "train.tsv"),
    "hans.generate": (["--per_subcase", 2], "heuristics_evaluation_set.txt"),
}


@pytest.mark.parametrize("script", GENERATORS)
def test_a_generator_replaces_its_own_files_only_when_asked(tmp_path, script):
    flags, last = GENERATORS[script]
    flags = ["--output_dir", tmp_path, *flags]
    run(script, *flags)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"holds finished results .{last} exists"):
        run(script, *flags, "--seed", 1)
    assert contents(tmp_path) == before
    run(script, *flags, "--seed", 1, "--overwrite_output_dir")
    assert before.keys() == contents(tmp_path).keys() and contents(tmp_path) != before


def test_real_data_is_never_replaced(tmp_path):
    tiny.write_mnli(tmp_path / "mnli")
    header = "\t".join(hans_generate.HEADER)
    (tmp_path / "hans").mkdir()
    (tmp_path / "hans" / "heuristics_evaluation_set.txt").write_text(
        f"{header}\nentailment\t( a )\t( a )\t(A)\t(A)\ta\n"
    )
    for script, folder in (("demo.generate", tmp_path / "mnli"), ("hans.generate", tmp_path / "hans")):
        before = contents(folder)
        with pytest.raises(InputError, match="was not generated here"):
            run(script, "--output_dir", folder, *GENERATORS[script][0], "--overwrite_output_dir")
        assert contents(folder) == before


def test_an_unfinished_corpus_is_made_again_unasked(tmp_path):
    """train.tsv is written last: a kill before it leaves dev files, and the same command goes on."""
    flags = ["--output_dir", tmp_path, *GENERATORS["demo.generate"][0]]
    run("demo.generate", *flags)
    whole = contents(tmp_path)
    (tmp_path / "train.tsv").unlink()
    run("demo.generate", *flags)
    assert contents(tmp_path) == whole


def test_a_selection_is_replaced_only_when_asked_and_never_in_a_run(tmp_path):
    data, out = tiny.write_mnli(tmp_path / "mnli"), tmp_path / "out"
    flags = ["--strategy", "random", "--data_pct", 0.5, "--data_dir", data, "--output_dir", out]
    run("select_examples", *flags)
    before = contents(out)
    for lost in (None, "selection.json"):
        if lost:
            (out / lost).unlink()
        with pytest.raises(InputError, match="holds finished results"):
            run("select_examples", *flags, "--selection_seed", 1)
    assert contents(out) == {"selection.npz": before["selection.npz"]}
    run("select_examples", *flags, "--selection_seed", 1, "--overwrite_output_dir")
    assert contents(out).keys() == before.keys() and contents(out) != before
    (out / "run.json").write_text("{}")
    with pytest.raises(InputError, match="belongs to a training run"):
        run("select_examples", *flags, "--overwrite_output_dir")


@pytest.mark.parametrize(
    "words",
    [
        ["demo.generate"],
        ["hans.generate"],
        ["select_examples", "--strategy", "random"],
        ["cluster_embeddings", "--embedding_path", "x"],
        ["get_embeddings", "--task_name", "MNLI"],
        ["test_hans", "--model_name_or_path", "x"],
        ["run_glue", "--task_name", "MNLI"],
        ["sweep", "--strategies", "random", "--data_pcts", "0.5"],
    ],
    ids=lambda words: words[0],
)
def test_an_empty_folder_name_is_not_the_current_folder(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*words, "--output_dir", "")
    assert stopped.value.code == 2 and "--output_dir is empty" in capsys.readouterr().err


def test_two_dashes_are_no_value(capsys):
    """argparse makes an empty list of them, where one word is expected."""
    with pytest.raises(SystemExit) as stopped:
        run("hans.generate", "--output_dir", "x", "--split=--")
    assert stopped.value.code == 2 and "--split is empty" in capsys.readouterr().err


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path):
    for name in (".clusters.npz.123.tmp", ".own.tmp", "kept.npz"):
        (tmp_path / name).write_text("")
    with folder_lock(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".own.tmp", "kept.npz"]


def test_a_corpus_that_would_take_hours_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"more than 2,000,000 pairs.*ask for fewer"):
        run("demo.generate", "--output_dir", tmp_path / "out", "--num_dev", 10**8)
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------------------- arrays
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_irreducible_losses_that_are_no_numbers_are_refused(tmp_path, wrong):
    write_npz(tmp_path / "loss.npz", irreducible_loss=np.array([0.5, wrong]))
    args = argparse.Namespace(irreducible_loss=tmp_path / "loss.npz")
    with pytest.raises(InputError, match="not all finite numbers"):
        importance_sampling_mnli.irreducible_loss(args, None, [0, 1], {})


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 2**32], "is no number of a cluster"), ([0.0, 0.5], "of other kinds"), (["0", "0"], "of other kinds")],
)
def test_labels_that_are_no_cluster_numbers_are_refused(labels, said):
    """2**32 would become cluster 0 as an int32."""
    with pytest.raises(InputError, match=said):
        Clusters(np.array(labels), np.zeros((1, 2)), np.zeros(2), "f", 2)


def test_an_npz_that_claims_a_trillion_entries_is_refused_at_once(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(InputError, match="claims 1000000000000 entries, more than the file holds"):
        read_npz(tmp_path / "a.npz")


# ---------------------------------------------------------------------------------------------------------- environment
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not a number from 1 up"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"RANK": "5"}, "RANK=5 with WORLD_SIZE=1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"WORLD_SIZE": "2"}, "no group of processes to join"),
    ],
)
def test_an_environment_that_describes_no_group_is_refused(monkeypatch, variables, said):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said):
        distributed.start(use_cpu=True)


def test_more_snapshots_than_steps_are_refused_at_once(checkpoint, tmp_path):
    data = tiny.write_mnli(tmp_path / "mnli")
    with pytest.raises(InputError, match=r"--dynamics_per_epoch 1000000000: an epoch has 6 steps"):
        run(
            "run_glue", "--model_name_or_path", checkpoint, "--task_name", "MNLI", "--data_dir", data, "--do_train",
            "--record_dynamics", "--dynamics_per_epoch", 10**9, "--output_dir", tmp_path / "out", "--cache_dir", tmp_path,
        )  # fmt: skip


def test_one_principal_axis_is_enough(tmp_path):
    about = {"model": "m", "task": "mnli", "split": "train", "fingerprint": "f", "pooling": "cls", "layer": None}
    writer = EmbeddingWriter(tmp_path / "cls_embeddings_mnli_train.npy", about, 30, 4, 30)
    writer.write(np.arange(30), np.random.default_rng(0).normal(size=(30, 4)))
    writer.mark_done(0)
    flags = ["--num_clusters", 2, "--pca", 1, "--output_dir", tmp_path / "clusters"]
    run("cluster_embeddings", "--embedding_path", writer.finish(), *flags)
    assert Clusters.load(tmp_path / "clusters" / "clusters.npz").centers.shape == (2, 1)


def test_an_odd_config_without_weights_is_one_line(checkpoint):
    change_config(num_attention_heads=0)(checkpoint)
    with pytest.raises(InputError, match=r"cannot be loaded as AutoModel.*ZeroDivisionError"):
        load_classifier(tiny.LABELS, ModelSettings(config_name=str(checkpoint)))
