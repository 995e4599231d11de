"""`get_embeddings.py`: row i is TSV row i and what the model alone says of it, however it was computed."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import get_embeddings
from tests import tiny
from utils.errors import InputError, run_script
from utils.models import inference
from utils.selection.embeddings import load_embeddings

FAMILIES = ("albert", "bert", "roberta", "distilbert")
NAMES = ("neutral", "contradiction", "entailment")  # the checkpoint's order of outputs, not the task's
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SPLITS = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_mnli(tmp_path_factory.mktemp("mnli"), n_train=37, n_dev=11, test=True)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A fine-tuned checkpoint's folder per family. Weights so large that rows differ by far more than rounding."""
    folders = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        config = tiny.config(family, initializer_range=0.2, id2label=dict(enumerate(NAMES)))
        config.label2id = {name: i for i, name in enumerate(NAMES)}
        folders[family] = tiny.write_tokenizer(tmp_path_factory.mktemp(family))
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folders[family])
    return folders


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TIS_CACHE", str(tmp_path / "cache"))


def flags(checkpoint, data, out, *more) -> list[str]:
    common = ("--model_name_or_path", checkpoint, "--task_name", "MNLI", "--data_dir", data, "--output_dir", out)
    return [str(word) for word in (*common, "--max_seq_length", 48, *more)]


def extract(*args, kind="cls_embeddings", split="train") -> np.ndarray:
    get_embeddings.main(flags(*args))
    return np.load(args[2] / f"{kind}_mnli_{split}.npy", allow_pickle=False)


def pairs(data, split) -> list[tuple[str, str]]:
    header, *rows = [line.split("\t") for line in (data / f"{split}.tsv").read_text().splitlines()]
    premise, hypothesis = header.index("sentence1"), header.index("sentence2")
    return [(row[premise], row[hypothesis]) for row in rows]


def alone(checkpoint, family, data, split="train") -> dict[str, np.ndarray]:
    """What transformers says of each row by itself, without padding, by what was asked for."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    layers = {
        "albert": lambda out: out.pooler_output,
        "bert": lambda out: out.pooler_output,
        "roberta": lambda out: torch.tanh(model.classifier.dense(out.last_hidden_state[:, 0])),
        "distilbert": lambda out: torch.relu(model.pre_classifier(out.last_hidden_state[:, 0])),
    }
    found = {name: [] for name in ("cls", "pooler", "mean", "layer 0", "layer 1", "logits")}
    for premise, hypothesis in pairs(data, split):
        segments = family in ("albert", "bert")
        words = tokenizer(premise, hypothesis, return_tensors="pt", return_token_type_ids=segments)
        with torch.no_grad():
            out = model.base_model(**words, output_hidden_states=True)
            found["cls"].append(out.last_hidden_state[:, 0])
            found["pooler"].append(layers[family](out))
            found["mean"].append(out.last_hidden_state.mean(1))
            for k in (0, 1):
                found[f"layer {k}"].append(out.hidden_states[k][:, 0])
            found["logits"].append(model(**words).logits[:, [NAMES.index(name) for name in tiny.LABELS]])
    return {name: torch.cat(rows).numpy() for name, rows in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_row_i_is_tsv_row_i_as_the_model_alone_sees_it(family, checkpoints, data, tmp_path):
    checkpoint = checkpoints[family]
    expected = alone(checkpoint, family, data)
    for name in ("cls", "pooler", "mean", "logits"):  # layer 0 of [CLS] is one and the same word for every row
        rows = expected[name]
        assert min(np.abs(rows[0] - other).max() for other in rows[1:]) > 1e-3, "any row would pass for another"
    for pooling in ("cls", "pooler", "mean"):
        kind = f"{pooling}_embeddings"
        found = extract(checkpoint, data, tmp_path / "out", "--pooling", pooling, kind=kind)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[pooling], **TOLERANCE, err_msg=pooling)
    for layer, name in ((0, "layer 0"), (1, "layer 1"), (2, "cls"), (-1, "cls")):
        found = extract(checkpoint, data, tmp_path / f"layer{layer}", "--layer", layer)
        np.testing.assert_allclose(found, expected[name], **TOLERANCE, err_msg=f"--layer {layer}")
    logits = extract(checkpoint, data, tmp_path / "with_logits", "--logits", kind="logits")
    np.testing.assert_allclose(logits, expected["logits"], **TOLERANCE)
    beside = np.load(tmp_path / "with_logits" / "cls_embeddings_mnli_train.npy")
    np.testing.assert_array_equal(beside, np.load(tmp_path / "out" / "cls_embeddings_mnli_train.npy"))


@pytest.mark.parametrize("pooling", [("--pooling", "cls"), ("--pooling", "mean"), ("--layer", 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_neither_the_micro_batch_nor_the_padding_side_matters(family, pooling, checkpoints, data, tmp_path):
    left = shutil.copytree(checkpoints[family], tmp_path / "left")
    described = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps(described | {"padding_side": "left"}))
    assert AutoTokenizer.from_pretrained(left).padding_side == "left"
    kind = "mean_embeddings" if "mean" in pooling else "cls_embeddings"
    found = [
        extract(checkpoint, data, tmp_path / f"{k}", *pooling, "--tokens_per_micro_batch", tokens, kind=kind)
        for k, (checkpoint, tokens) in enumerate(((checkpoints[family], 1), (checkpoints[family], 10_000), (left, 200)))
    ]
    np.testing.assert_allclose(found[1], found[0], **TOLERANCE)
    np.testing.assert_allclose(found[2], found[0], **TOLERANCE)


def test_all_splits_and_what_the_json_says(checkpoints, data, tmp_path):
    out = tmp_path / "out"
    done = tiny.run_script("get_embeddings.py", *flags(checkpoints["albert"], data, out, "--split", "all", "--logits"))
    assert len(done.stdout.splitlines()) == 2 * len(SPLITS) and done.stdout.count("written: ") == 2 * len(SPLITS)
    for split in SPLITS:
        expected = alone(checkpoints["albert"], "albert", data, split)
        for kind, name in (("cls_embeddings", "cls"), ("logits", "logits")):
            path = out / f"{kind}_mnli_{split}.npy"
            np.testing.assert_allclose(np.load(path, mmap_mode="r"), expected[name], **TOLERANCE)
            about = json.loads(path.with_suffix(".json").read_text())
            assert (about["n"], about["d"]) == expected[name].shape and about["split"] == split and about["complete"]
            assert about["pooling"] == name and about["class_names"] == list(tiny.LABELS)
    with_gold = [split for split in SPLITS if not split.startswith("test")]
    assert {path.name for path in out.glob("gold_*")} == {f"gold_mnli_{split}.npy" for split in with_gold}
    assert len(list(out.iterdir())) == 4 * len(SPLITS) + len(with_gold), "something unfinished is left behind"


@pytest.mark.parametrize(("family", "room"), [("albert", 64), ("bert", 64), ("roberta", 63), ("distilbert", 64)])
def test_pairs_longer_than_the_model_are_cut_to_its_positions(family, room, checkpoints, tmp_path):
    """RoBERTa numbers positions from the one after padding's: 64 of them hold 63 tokens where padding is token 0."""
    data = tiny.write_mnli(tmp_path / "data", n_train=3, n_dev=3)
    path = data / "train.tsv"
    path.write_text(path.read_text().replace("\tp0\tgenre0\t\t\t\t\t", "\tp0\tgenre0\t\t\t\t\t" + "dog sees a " * 50))
    found = extract(checkpoints[family], data, tmp_path / "default", "--max_seq_length", 128)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(
        found, extract(checkpoints[family], data, tmp_path / "exact", "--max_seq_length", room)
    )
    shorter = extract(checkpoints[family], data, tmp_path / "shorter", "--max_seq_length", room - 1)
    assert np.abs(shorter[0] - found[0]).max() > 1e-3 and np.abs(shorter[1:] - found[1:]).max() < 1e-5


class Killed(Exception):
    pass


def test_an_interrupted_extraction_continues_to_the_same_bytes(checkpoints, data, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "BLOCK_ROWS", 5)  # 37 rows in 8 blocks
    checkpoint, forward, seen = checkpoints["bert"], inference._one, []

    def until(rows_allowed):
        def one(classifier, encoded, rows, *more):
            if len(seen) + len(rows) > rows_allowed:
                raise Killed
            seen.extend(rows.tolist())
            return forward(classifier, encoded, rows, *more)

        seen.clear()
        monkeypatch.setattr(inference, "_one", one)

    until(37)
    extract(checkpoint, data, tmp_path / "whole", "--logits")
    assert sorted(seen) == list(range(37))
    names = [f"{kind}_mnli_train{end}" for kind in ("cls_embeddings", "logits") for end in (".npy", ".json")]
    names.append("gold_mnli_train.npy")
    until(17)
    with pytest.raises(Killed):
        extract(checkpoint, data, tmp_path / "killed", "--logits")
    assert not any((tmp_path / "killed" / name).exists() for name in names)
    until(22)  # rows 0 to 14 are there: 22 are left
    extract(checkpoint, data, tmp_path / "killed", "--logits")
    assert sorted(seen) == list(range(15, 37))
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_killed_between_the_two_files_of_a_block(checkpoints, data, tmp_path, monkeypatch):
    """The embeddings of a block are marked as done, its logits are not: both files still come out whole."""
    from utils.selection.embedding_writer import EmbeddingWriter

    monkeypatch.setattr(inference, "BLOCK_ROWS", 10)
    whole = [
        extract(checkpoints["bert"], data, tmp_path / "whole", "--logits", kind=k) for k in ("cls_embeddings", "logits")
    ]
    mark = EmbeddingWriter.mark_done

    def mark_done(self, block):
        if self.path.name.startswith("logits") and block == 2:
            raise Killed
        mark(self, block)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(EmbeddingWriter, "mark_done", mark_done)
        extract(checkpoints["bert"], data, tmp_path / "out", "--logits")
    again = [
        extract(checkpoints["bert"], data, tmp_path / "out", "--logits", kind=k) for k in ("cls_embeddings", "logits")
    ]
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_embeddings_are_kept_and_those_of_another_checkpoint_refused(
    checkpoints, data, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    path = out / "cls_embeddings_mnli_train.npy"
    before = extract(checkpoints["bert"], data, out)
    written = path.stat().st_mtime_ns
    capsys.readouterr()
    extract(checkpoints["bert"], data, out)
    assert capsys.readouterr().out.startswith("already there: ") and path.stat().st_mtime_ns == written
    message = refusal(monkeypatch, capsys, *flags(checkpoints["albert"], data, out))
    assert "holds other embeddings (model: " in message and "--overwrite_output_dir" in message
    np.testing.assert_array_equal(np.load(path), before)
    after = extract(checkpoints["albert"], data, out, "--overwrite_output_dir")
    assert np.abs(after - before).max() > 0.1 and len(list(out.iterdir())) == 2


def test_embeddings_of_another_program_are_not_replaced(checkpoints, data, tmp_path):
    np.save(tmp_path / "cls_embeddings_mnli_train.npy", np.ones((37, 2)))
    with pytest.raises(
        InputError, match=r"cls_embeddings_mnli_train\.npy has no \.json beside it, so it is not this script's"
    ):
        extract(checkpoints["bert"], data, tmp_path)
    assert extract(checkpoints["bert"], data, tmp_path, "--overwrite_output_dir").shape == (37, 32)


def test_retrained_weights_in_the_same_folder_are_noticed(checkpoints, data, tmp_path, capsys, monkeypatch):
    checkpoint = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    extract(checkpoint, data, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias[3] += 1e-3
    model.save_pretrained(checkpoint)
    message = refusal(monkeypatch, capsys, *flags(checkpoint, data, tmp_path / "out"))
    assert "holds other embeddings (weights: " in message


def test_a_kill_leaves_no_gold_of_earlier_data_beside_new_logits(checkpoints, data, tmp_path, monkeypatch):
    out, other = tmp_path / "out", tiny.write_mnli(tmp_path / "other", n_train=37, seed=3)
    extract(checkpoints["bert"], other, out, "--logits")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(get_embeddings, "write_gold", lambda *_: (_ for _ in ()).throw(Killed))
        extract(checkpoints["bert"], data, out, "--logits", "--overwrite_output_dir")
    assert (out / "logits_mnli_train.json").exists() and not (out / "gold_mnli_train.npy").exists()


def test_what_changes_the_numbers_is_noticed_in_the_same_folder(checkpoints, data, tmp_path):
    checkpoint, out = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint"), tmp_path / "out"
    unnamed, path = {f"LABEL_{i}": i for i in range(3)}, checkpoint / "config.json"
    names = {"label2id": unnamed, "id2label": {i: name for name, i in unnamed.items()}}
    path.write_text(json.dumps(json.loads(path.read_text()) | names))
    extract(checkpoint, data, out, "--logits", "--label_order", "contradiction,entailment,neutral")
    with pytest.raises(InputError, match=r"logits_mnli_train.npy holds other embeddings \(outputs: "):
        extract(checkpoint, data, out, "--logits", "--label_order", "entailment,neutral,contradiction")
    for name, key, value in (("config", "hidden_act", "relu"), ("tokenizer", "normalizer", None)):
        path = checkpoint / f"{name}.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {key: value}))
        with pytest.raises(InputError, match=rf"holds other embeddings \({name}: "):
            extract(checkpoint, data, out)
        path.write_text(before)
    path = out / "cls_embeddings_mnli_train.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in about.items() if key not in ("config", "tokenizer")}))
    extract(checkpoint, data, out)  # of an earlier version, which did not say
    assert "config" not in json.loads(path.read_text())


def refusal(monkeypatch, capsys, *argv) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["get_embeddings.py", *map(str, argv)])
    with pytest.raises(SystemExit) as exit_:
        run_script(get_embeddings.main)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert exit_.value.code == 2 and len(lines) == 1 and lines[0].startswith("get_embeddings.py: error: ")
    return lines[0]


def test_what_cannot_be_used_is_one_clear_line(checkpoints, data, tmp_path, capsys, monkeypatch):
    checkpoint, out = checkpoints["bert"], tmp_path / "out"
    headless = tiny.write_tokenizer(tmp_path / "headless")
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    model.base_model.save_pretrained(headless)
    unnamed = tiny.write_tokenizer(tmp_path / "unnamed")
    model.config.id2label = {i: f"LABEL_{i}" for i in range(3)}
    model.config.label2id = {f"LABEL_{i}": i for i in range(3)}
    model.save_pretrained(unnamed)
    cases = {
        "nowhere: no such folder, and not the form of a hub name": flags(tmp_path / "nowhere", data, out),
        "--data_dir " + str(tmp_path / "nowhere"): flags(checkpoint, tmp_path / "nowhere", out),
        "train.tsv": flags(checkpoint, headless, out),
        "it looks like mnli": flags(checkpoint, data, out, "--task_name", "RTE"),
        "is not a GLUE task": flags(checkpoint, data, out, "--task_name", "XNLI"),
        "dev_matched": flags(checkpoint, data, out, "--split", "dev"),  # the message lists the splits there are
        "does not go with --pooling pooler": flags(checkpoint, data, out, "--layer", 1, "--pooling", "pooler"),
        "--layer 3": flags(checkpoint, data, out, "--layer", 3),
        "--layer -4": flags(checkpoint, data, out, "--layer", -4),
        "--label_order": flags(unnamed, data, out, "--logits"),
        "--label_order auto is for run_glue.py": flags(checkpoint, data, out, "--label_order", "auto"),
        "leaves no room for text": flags(checkpoint, data, out, "--max_seq_length", 3),
        "0 is not a whole number from 1": flags(checkpoint, data, out, "--tokens_per_micro_batch", 0),
    }
    for expected, argv in cases.items():
        assert expected in refusal(monkeypatch, capsys, *argv), expected
        assert not list(out.glob("*.npy")), expected
    for more in (("--logits",), ("--pooling", "pooler")):
        assert "holds no classifier for 3 classes" in refusal(monkeypatch, capsys, *flags(headless, data, out, *more))
    extract(headless, data, out)  # [CLS] needs no classifier
    np.testing.assert_allclose(
        np.load(out / "cls_embeddings_mnli_train.npy"), alone(checkpoint, "bert", data)["cls"], **TOLERANCE
    )


# -------------------------------------------------------------------------------------------------- shards and precision
@pytest.fixture
def blocks_of_eight(monkeypatch):
    monkeypatch.setattr(inference, "BLOCK_ROWS", 8)  # the 37 rows are 5 blocks


@pytest.mark.parametrize("k", [2, 5, 7])
def test_shards_give_the_same_bytes_as_one_run(k, checkpoints, data, tmp_path, blocks_of_eight):
    wanted, out = ("--logits", "--dtype", "float16", "--split", "train", "dev_matched"), tmp_path / "parts"
    whole = flags(checkpoints["albert"], data, tmp_path / "whole", *wanted)
    get_embeddings.main(whole)
    words = flags(checkpoints["albert"], data, out, *wanted)
    for i in range(k, 0, -1):
        if i == k // 2:  # not before all are there
            with pytest.raises(InputError, match=f"shard [12]/{k} is not finished"):
                get_embeddings.main(words)
        get_embeddings.main([*words, "--shard", f"{i}/{k}"])
    get_embeddings.main(words)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in out.iterdir()} == names and len(names) == 10
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_joining_one_split_keeps_the_shards_of_another(checkpoints, data, tmp_path, blocks_of_eight):
    words = flags(checkpoints["albert"], data, tmp_path)
    for i in (1, 2):
        get_embeddings.main([*words, "--split", "train", "dev_matched", "--shard", f"{i}/2"])
    get_embeddings.main(words)
    assert [path.name for path in sorted(tmp_path.glob("shard*/*.npy"))] == ["cls_embeddings_mnli_dev_matched.npy"] * 2
    get_embeddings.main([*words, "--split", "dev_matched"])
    assert not list(tmp_path.glob("shard*")) and len(list(tmp_path.glob("cls*"))) == 4


def test_shards_of_another_kind_are_refused(checkpoints, data, tmp_path, blocks_of_eight):
    words = flags(checkpoints["albert"], data, tmp_path)
    for i in (1, 2):
        get_embeddings.main([*words, "--shard", f"{i}/2"])
    with pytest.raises(InputError, match=r"shard_1_of_2.*dtype: 'float32', now 'float16'"):
        get_embeddings.main([*words, "--dtype", "float16"])
    get_embeddings.main([*words, "--shard", "1/3"])
    with pytest.raises(InputError, match="shards of 2 and of 3"):
        get_embeddings.main(words)


def test_half_precision_is_read_as_float32(checkpoints, data, tmp_path):
    exact = extract(checkpoints["bert"], data, tmp_path / "float32")
    half = extract(checkpoints["bert"], data, tmp_path / "float16", "--dtype", "float16")
    assert half.dtype == np.float16
    array = load_embeddings(tmp_path / "float16").array
    assert array[3:5].dtype == array.dtype == np.asarray(array).dtype == np.float32
    np.testing.assert_allclose(np.asarray(array), exact, rtol=2**-10, atol=1e-6)
    with pytest.raises(InputError, match="dtype: 'float16', now 'float32'"):
        get_embeddings.main(flags(checkpoints["bert"], data, tmp_path / "float16"))
