"""`utils.models.pack`: the Hugging Face Trainer and a plain loop on packed batches give what padded ones give."""

import copy

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.test_training import ragged
from utils.models import pack

PACKED = ("albert", "bert", "roberta", "distilbert")


def build(family, **changes):
    torch.manual_seed(0)
    changes = {"num_labels": 3, "initializer_range": 0.2} | changes
    return AutoModelForSequenceClassification.from_config(tiny.config(family, **changes))


def rows_of(family, n=24):
    """n rows as a tokenizer gives them, without padding."""
    data = ragged(n)
    rows = []
    for start, end, label in zip(data.offsets, data.offsets[1:], data.labels, strict=False):
        row = {"input_ids": data.input_ids[start:end].tolist(), "label": int(label)}
        if family in ("albert", "bert"):
            row["token_type_ids"] = data.token_type_ids[start:end].tolist()
        rows.append(row)
    return rows


def padded(rows, pad_id):
    """The same batch, padded to its longest row."""
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"labels": torch.tensor([row["label"] for row in rows])}
    for name, value in (("input_ids", pad_id), ("token_type_ids", 0), ("attention_mask", 0)):
        columns = [row.get(name, [1] * len(row["input_ids"])) for row in rows]
        if name in rows[0] or name == "attention_mask":
            batch[name] = torch.tensor([column + [value] * (width - len(column)) for column in columns])
    return batch


@pytest.mark.parametrize("family", PACKED)
def test_the_trainer_learns_the_same_packed_and_padded(family, tmp_path):
    rows, found = rows_of(family), []
    for packed in (True, False):
        model = build(family)
        if packed:
            pack.enable(model)
        arguments = transformers.TrainingArguments(
            tmp_path, per_device_train_batch_size=8, max_steps=4, learning_rate=1e-3, report_to="none", seed=1,
            save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        collate = pack.collate if packed else lambda rows, pad=model.config.pad_token_id: padded(rows, pad)
        trainer = transformers.Trainer(model, arguments, data_collator=collate, train_dataset=rows, eval_dataset=rows)
        start = copy.deepcopy(model.state_dict())
        trainer.train()
        moved = torch.cat([(after - start[name]).flatten() for name, after in model.state_dict().items()])
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        prediction = trainer.predict(rows)
        assert prediction.predictions.shape == (24, 3) and prediction.label_ids.tolist() == [r["label"] for r in rows]
        found.append((losses, moved, torch.from_numpy(prediction.predictions)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4) and found[0][1].abs().max() > 1e-3
    assert (found[0][1] - found[1][1]).norm() < 0.02 * found[1][
        1
    ].norm()  # Adam enlarges the rounding of tiny gradients
    torch.testing.assert_close(found[0][2], found[1][2], atol=2e-2, rtol=0)


def test_a_plain_loop_in_three_lines_and_padding_that_is_there_already():
    model, rows = build("bert").eval(), rows_of("bert", 6)
    expected = model(**padded(rows, 0))
    pack.enable(model)
    with_padding = [
        {name: column.tolist() for name, column in zip(batch, columns, strict=True)}
        for batch in [padded(rows, 0)]
        for columns in zip(*batch.values(), strict=True)
    ]
    for given in (rows, with_padding):
        output = model(**pack.collate(given))
        torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=0)
    assert torch.equal(model(**padded(rows, 0)).logits, expected.logits)  # its own path is still there
    unlabelled = pack.collate([{k: v for k, v in row.items() if k != "label"} for row in rows])
    assert model(**unlabelled).loss is None
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.classifier.weight.zero_()
    assert not torch.equal(copied(**pack.collate(rows)).logits, model(**pack.collate(rows)).logits)


def test_accumulated_batches_have_the_mean_over_all_of_them():
    model, rows = build("bert"), rows_of("bert", 6)
    pack.enable(model.eval())
    parts = [model(**pack.collate(part), num_items_in_batch=6).loss for part in (rows[:2], rows[2:])]
    torch.testing.assert_close(sum(parts), model(**pack.collate(rows)).loss)


def test_regression():
    model, rows = build("bert", num_labels=1).eval(), rows_of("bert", 6)
    rows = [row | {"label": float(row["label"])} for row in rows]
    expected = model(**padded(rows, 0)).loss
    pack.enable(model)
    torch.testing.assert_close(model(**pack.collate(rows)).loss, expected, atol=1e-5, rtol=0)


def test_what_cannot_be_packed_is_refused():
    config = transformers.XLNetConfig(vocab_size=30, d_model=32, n_layer=1, n_head=4, d_inner=32)
    with pytest.raises(ValueError, match="XLNetForSequenceClassification of type xlnet cannot run packed"):
        pack.enable(AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(ValueError, match="row 1 of the batch has no tokens"):
        pack.collate([{"input_ids": [1, 2]}, {"input_ids": []}])
