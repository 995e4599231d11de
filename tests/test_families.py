"""Every family of models: packed passes against padded ones, frozen layers, decoders and encoder-decoders in the scripts.
Tiny models with random weights, CPU, float32."""

import importlib
import json
import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import get_embeddings
import run_glue
from benchmarks import families as bench
from benchmarks.families import LENGTHS, ROWS, build, classifier_of, collate, make_data
from hans.data import load_hans
from hans.generate import HEADER
from tests import tiny
from utils.errors import InputError
from utils.files import read_json
from utils.flags import InferenceSettings, ModelSettings
from utils.models import forward as passes
from utils.models import pack
from utils.models.classifier import load_classifier
from utils.models.families import final_linear, freeze_lower_layers
from utils.models.frozen import FrozenOutputs
from utils.models.packing import packed_logits, packed_outputs, supports_packing
from utils.models.session import Session
from utils.training.objectives import learned_mixin

PACKED = [row for row in ROWS if read_json(bench.RESULTS)["families"][row.name]["about"]["batches"] == "packed"]
every_family = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
packed_families = pytest.mark.parametrize("row", PACKED, ids=lambda row: row.name)
ALL = np.arange(len(LENGTHS))


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """A cache of its own; one thread; logging as it was."""
    monkeypatch.setenv("TIS_CACHE", str(tmp_path / "cache"))
    threads, handlers, level = torch.get_num_threads(), logging.root.handlers[:], logging.root.level
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def packed_batch(data):
    batch = collate(data, ALL, torch.device("cpu"), packed=True)
    return batch.input_ids, batch.token_type_ids, batch.cu_seqlens


@every_family
def test_padding_and_packing_change_nothing(row):
    found = bench.differences(row)
    assert found["logits"] <= 1e-5 and found["embedding"] <= 1e-5 and found["gradient"] <= 1e-4
    assert found["spread"] > 0.1  # the inputs matter


@every_family
def test_the_classifier_input_gives_the_logits(row):
    """Gradients of the classifier layer (grand, tracin) are made of it."""
    model = build(row)
    options = {"processes": bench.start(use_cpu=True), "precision": bench.Precision("float32", "cpu")}
    out = next(bench.infer(classifier_of(model), make_data(model, LENGTHS), ALL, pooling="pooler", **options))
    with torch.no_grad():
        expected = final_linear(model)(torch.from_numpy(out.features)).numpy()
    np.testing.assert_allclose(out.logits, expected, atol=1e-5)


@packed_families
def test_no_linear_layer_sees_padding(row):
    model, seen = build(row), []
    data = make_data(model, LENGTHS)
    rows = {sum(LENGTHS), len(LENGTHS)}  # tokens, and pooled sequences in the head
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".pos_" not in name:  # DeBERTa's, of its table of positions
            module.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].shape[:-1].numel()))
    packed_logits(model, *packed_batch(data), max(LENGTHS))
    # BERT's own pooler runs on one token; DeBERTa v2 uses a projection for its table of positions too.
    others = {1, *(len(p) for name, p in model.named_parameters() if "rel_embeddings" in name)}
    assert set(seen) - others == rows


@packed_families
def test_every_family_runs_packed_for_the_trainer(row):
    model, data = build(row).eval(), make_data(build(row), LENGTHS)
    batch = collate(data, ALL, torch.device("cpu"))
    padded = passes.forward(classifier_of(model), model, batch)
    pack.enable(model)
    parts = list(zip(data.offsets, data.offsets[1:], strict=False))
    rows = [{"input_ids": data.input_ids[a:b].tolist(), "label": 0} for a, b in parts]
    if data.token_type_ids is not None:
        rows = [
            row | {"token_type_ids": data.token_type_ids[a:b].tolist()} for row, (a, b) in zip(rows, parts, strict=True)
        ]
    out = model(**pack.collate(rows))
    assert torch.allclose(out.logits, padded, atol=1e-5) and out.loss.isfinite()


@every_family
def test_frozen_layers_need_not_run_again(row, tmp_path):
    classifier, data = classifier_of(build(row)), make_data(build(row), LENGTHS)
    model = classifier.model.eval()
    try:
        freeze_lower_layers(model, 1)
    except InputError:
        pytest.skip("its layers are shared")
    session = Session(
        classifier,
        bench.start(use_cpu=True),
        bench.Precision("float32", "cpu"),
        InferenceSettings(cache_dir=str(tmp_path)),
    )
    if row.model_type == "t5":
        with pytest.raises(InputError, match="hand on more than hidden states"):
            FrozenOutputs(session, data, ALL, 1)
        return
    frozen = FrozenOutputs(session, data, ALL, 1)
    batch = collate(data, ALL, torch.device("cpu"), packed=passes.use_packing(classifier, session.precision))
    with torch.no_grad():
        whole = passes.forward(classifier, model, batch)
        with frozen.resume(batch):
            resumed = passes.forward(classifier, model, batch)
    assert torch.allclose(whole, resumed, atol=1e-5)


@pytest.mark.parametrize(
    "row", [r for r in PACKED if r.model_type in ("mpnet", "modernbert")], ids=lambda row: row.name
)
def test_the_cuda_code_reads_nothing_back_from_the_device(row):
    """On the meta device, where tensors have no values, reading one raises. DeBERTa's own code does, also padded."""
    model = build(row).to("meta", dtype=torch.bfloat16)
    batch = [None if x is None else x.to("meta") for x in packed_batch(make_data(build(row), LENGTHS))]
    out = packed_outputs(model, *batch, max(LENGTHS))
    out.logits.sum().backward()
    assert out.logits.shape == (len(LENGTHS), 3) and out.cls.shape == (len(LENGTHS), 32)


@pytest.mark.parametrize("row", [r for r in PACKED if r.name == "DeBERTa v2"], ids=lambda row: row.name)
def test_attention_modules_are_their_own_outside_packed_passes(row):
    model = build(row).eval()
    data = make_data(model, LENGTHS)
    padded = passes.forward(classifier_of(model), model, collate(data, ALL, torch.device("cpu")))
    packed_logits(model, *packed_batch(data), max(LENGTHS))
    again = passes.forward(classifier_of(model), model, collate(data, ALL, torch.device("cpu")))
    assert torch.equal(padded, again)
    with pytest.raises(ValueError, match=f"max_length is 35 and the longest packed sequence has {max(LENGTHS)} tokens"):
        packed_logits(model, *packed_batch(data), 35)
    model.config.talking_head = True
    assert not supports_packing(model)


@every_family
def test_frozen_layers_keep_what_they_compute(row):
    model = build(row)
    if row.model_type == "albert":
        with pytest.raises(InputError, match="AlbertForSequenceClassification shares or hides its layers"):
            freeze_lower_layers(model, 1)
        return
    freeze_lower_layers(model, 2)
    batch = collate(make_data(model, LENGTHS), ALL, torch.device("cpu"))
    states = []
    for rate in (0.1, 0.0):
        segments = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        out = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True, **segments)
        out.logits.square().sum().backward()
        torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=rate).step()
        states.append(out.encoder_hidden_states if model.config.is_encoder_decoder else out.hidden_states)
    assert torch.equal(states[0][2], states[1][2]) and not torch.equal(states[0][3], states[1][3])
    assert final_linear(model).weight.grad is not None
    with pytest.raises(InputError, match="--freeze_layers 4: the model has 3 layers"):
        freeze_lower_layers(model, 4)


def test_the_page_is_what_the_code_says():
    results = read_json(bench.RESULTS)
    assert bench.page(results) == bench.PAGE.read_text()
    for row in ROWS:
        found = results["families"][row.name]
        assert found["about"] == bench.about(row) and max(found["differences"].values()) < 5


# --------------------------------------------------------------------------------- decoders and encoder-decoders, scripts
def write_checkpoint(folder, model_type: str, *, weights: bool = False, names=None):
    """A folder of this type with a tokenizer as its models have: of a decoder without padding token and separator."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = {token: i for i, token in enumerate([*special, *tiny.WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"eos_token": "</s>", "unk_token": "<unk>"}
    if model_type in ("bart", "t5"):
        tokens["pad_token"] = "<pad>"
        single, pair = (
            ("<s> $A </s>", "<s> $A </s> </s> $B </s>") if model_type == "bart" else ("$A </s>", "$A </s> $B </s>")
        )
        marks = [("<s>", 0), ("</s>", 2)]
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=marks)
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)
    row = next(row for row in ROWS if row.model_type == model_type)
    model = build(row, positions=64)
    if model_type in ("gpt2", "llama"):
        model.config.pad_token_id = None
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    (model if weights else model.config).save_pretrained(folder)
    return folder


def words(*flags) -> list[str]:
    return [str(flag) for flag in flags]


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bart", "t5"])
def test_training_evaluation_and_extraction(model_type, tmp_path, capsys):
    data = tiny.write_mnli(tmp_path / "mnli")
    config, trained, out = write_checkpoint(tmp_path / "config", model_type), tmp_path / "trained", tmp_path / "out"
    common = ("--task_name", "MNLI", "--data_dir", data, "--max_seq_length", 32)
    passes._say_padded.cache_clear()
    run_glue.main(
        words("--config_name", config, "--tokenizer_name", config, *common, "--do_train", "--do_eval", "--freeze_layers", 1,
              "--per_gpu_train_batch_size", 8, "--num_train_epochs", 1, "--output_dir", trained)
    )  # fmt: skip
    assert json.loads((trained / "results.json").read_text())["eval"]["dev_matched"]["eval_acc"] > 0.2
    tokenizer, saved = AutoTokenizer.from_pretrained(trained), AutoConfig.from_pretrained(trained)
    assert tokenizer.pad_token_id == saved.pad_token_id == (2 if model_type in ("gpt2", "llama") else 1)
    extract = words("--model_name_or_path", trained, *common, "--logits", "--output_dir", out)
    get_embeddings.main(extract)
    get_embeddings.main([*extract, "--pooling", "pooler"])
    get_embeddings.main([*extract, "--layer", "-1", "--output_dir", str(tmp_path / "layer")])
    said = capsys.readouterr().err
    assert "--pooling auto: last, because" in said and said.count("its batches are padded") == 1
    last, pooler, logits = (
        np.load(out / f"{kind}_mnli_train.npy") for kind in ("last_embeddings", "pooler_embeddings", "logits")
    )
    np.testing.assert_allclose(np.load(tmp_path / "layer" / "last_embeddings_mnli_train.npy"), last, atol=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    linear = final_linear(model)
    by_hand = pooler @ linear.weight.detach().numpy().T + (0 if linear.bias is None else linear.bias.detach().numpy())
    np.testing.assert_allclose(by_hand, logits, atol=1e-5)  # what the gradients of the classifier layer are made of
    if model_type in ("gpt2", "llama"):
        np.testing.assert_allclose(last, pooler, atol=1e-6)
    for index, (premise, hypothesis, _) in enumerate(tiny.pairs(48)[:5]):
        with torch.no_grad():
            alone = model(**tokenizer(premise, hypothesis, return_tensors="pt", return_token_type_ids=False)).logits
        np.testing.assert_allclose(logits[index], alone[0], atol=1e-5)
    with pytest.raises(InputError, match=f"--pooling cls: {model_type} is a.*; give --pooling last"):
        get_embeddings.main([*extract, "--pooling", "cls", "--output_dir", str(tmp_path / "cls")])


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_learned_mixin_reads_the_token_that_the_head_reads(model_type):
    """A batch of two lengths gives each example the loss that it has alone."""
    model = build(next(row for row in ROWS if row.model_type == model_type), positions=64).eval()
    ids, labels = torch.randint(5, 20, (2, 9)), torch.tensor([0, 2])
    ids[1, 5:] = model.config.pad_token_id
    with learned_mixin(model, torch.rand(2, 3).log(), 0.1, seed=0) as objective:
        mask = (ids != model.config.pad_token_id).long()
        losses = objective(model(input_ids=ids, attention_mask=mask).logits, labels, np.arange(2))
        alone = objective(model(input_ids=ids[1:, :5]).logits, labels[1:], np.array([1]))
    torch.testing.assert_close(losses[1:], alone)


def test_different_examples_have_different_embeddings_in_a_decoder(tmp_path):
    rows = list(dict.fromkeys(tiny.pairs(2400)))[:2000]
    data = tiny.write_mnli(tmp_path / "mnli")
    header = (data / "train.tsv").read_text().splitlines()[0].split("\t")
    lines = ["\t".join(header)]
    for number, (premise, hypothesis, label) in enumerate(rows):
        row = {
            "index": str(number),
            "sentence1": premise,
            "sentence2": hypothesis,
            "gold_label": label,
            "label1": label,
        }
        lines.append("\t".join(row.get(name, "") for name in header))
    (data / "train.tsv").write_text("\n".join(lines) + "\n")
    config = write_checkpoint(tmp_path / "config", "gpt2")
    get_embeddings.main(
        words("--config_name", config, "--tokenizer_name", config, "--task_name", "MNLI", "--data_dir", data,
              "--max_seq_length", 48, "--output_dir", tmp_path / "out")
    )  # fmt: skip
    found = np.load(tmp_path / "out" / "last_embeddings_mnli_train.npy")
    assert len(rows) == 2000 and len(np.unique(found, axis=0)) == 2000


def test_an_nli_checkpoint_of_the_bart_kind_on_hans(tmp_path, capsys):
    names = ("contradiction", "neutral", "entailment")
    checkpoint = write_checkpoint(tmp_path / "bart", "bart", weights=True, names=names)
    rows = [
        ["entailment" if label == "entailment" else "non-entailment", "", "", "", "", premise, f"{hypothesis} </s> man",
         f"ex{i}", "subsequence", f"s{i % 2}", "t"]
        for i, (premise, hypothesis, label) in enumerate(tiny.pairs(60, 5))
    ]  # fmt: skip
    (tmp_path / "heuristics_evaluation_set.txt").write_text("\n".join("\t".join(row) for row in [HEADER, *rows]) + "\n")
    importlib.import_module("test_hans").main(
        words("--model_name_or_path", checkpoint, "--do_eval", "--data_dir", tmp_path, "--max_seq_length", 48,
              "--output_dir", tmp_path / "out", "--task_name", "HANS")
    )  # fmt: skip
    answers = [line.split(",")[1] for line in (tmp_path / "out" / "hans_predictions.txt").read_text().splitlines()[1:]]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, split_special_tokens=True)  # `</s>` in a text is text
    expected, data = [], load_hans(tmp_path)
    for premise, hypothesis in zip(data.premises, data.hypotheses, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(premise, hypothesis, return_tensors="pt", return_token_type_ids=False)).logits
        expected.append("entailment" if names[int(logits.argmax())] == "entailment" else "non-entailment")
    assert answers == expected and set(answers) == {"entailment", "non-entailment"}


@pytest.mark.parametrize(
    ("model_type", "options", "why"),
    [
        ("xlnet", {"d_model": 32, "n_head": 4, "n_layer": 2, "d_inner": 64, "d_head": 8}, "depends on the padding"),
        ("fnet", {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}, "depends on the padding"),
        (
            "perceiver",
            {"d_model": 32, "d_latents": 32, "num_latents": 4, "num_cross_attention_heads": 4},
            "hidden state",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(model_type, options, why, tmp_path):
    tiny.write_tokenizer(tmp_path)
    AutoConfig.for_model(model_type, vocab_size=40, initializer_range=0.2, **options).save_pretrained(tmp_path)
    settings = ModelSettings(config_name=str(tmp_path), tokenizer_name=str(tmp_path))
    with pytest.raises(InputError, match=f"ForSequenceClassification is not supported: .*{why}"):
        load_classifier(tiny.LABELS, settings)
