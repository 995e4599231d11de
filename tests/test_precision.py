"""What makes training and inference fast on a CPU and must not change their results: dropout masks, bf16."""

import copy
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.test_training import ALONE, classifier, everything, ragged, same, weights_of
from utils.flags import TrainingSettings
from utils.models import forward
from utils.models.classifier import Classifier
from utils.models.dropout import dropout, use_cheap_dropout
from utils.models.forward import Precision, choose_precision
from utils.models.inference import infer
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.loop import Hooks, train

BF16 = Precision("bf16", "cpu")


def with_dropout():
    config = tiny.config("bert", num_labels=3)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.2
    torch.manual_seed(0)
    return Classifier(AutoModelForSequenceClassification.from_config(config), None, tiny.LABELS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_dropout_drops_the_share_asked_for_and_scales_the_rest(p, dtype):
    torch.manual_seed(0)
    n = 400_003  # no multiple of four: the last random number is not used up
    x = torch.ones(n, dtype=dtype, requires_grad=True)
    out = dropout(x, p)
    out.sum().backward()
    dropped = (out == 0).float()
    assert dropped.mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5 + 2**-16)
    assert out[out != 0].float().unique().item() == pytest.approx(
        1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 4e-3
    )
    assert torch.equal(x.grad, out.detach())  # the backward pass uses the same mask
    for lag in (1, 2, 4, 512) if p else ():  # neighbours in one random number and in others do not go together
        together = (dropped[:-lag] * dropped[lag:]).mean().item()
        assert together == pytest.approx(p * p, abs=5 * p * (1 - p * p) ** 0.5 / n**0.5)


def test_dropout_follows_the_seed_and_all_elements_can_go():
    x = torch.randn(7, 33)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(dropout(x, 0.5))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not dropout(x, 1.0).any()


def test_cheap_dropout_changes_no_parameter_and_is_off_in_evaluation():
    model = with_dropout().model
    before, config = copy.deepcopy(model.state_dict()), model.config.to_json_string()
    use_cheap_dropout(model)
    assert "Dropout(p=0.2" in str(model) and model.config.to_json_string() == config
    assert model.state_dict().keys() == before.keys()
    x = torch.randn(50, 32)
    assert model.eval().dropout(x) is x
    assert (model.train().dropout(x) == 0).any()


def train_in_bf16(model, data, **options):
    batches = UniformBatches(everything(data), batch_size=8, seed=3, epochs=2)
    settings = TrainingSettings(learning_rate=1e-3, seed=3, save_steps=3, tokens_per_micro_batch=90)
    return train(model, data, batches, settings, processes=ALONE, precision=BF16, **options)


def test_a_killed_run_in_bf16_continues_to_the_same_bits(tmp_path):
    data = ragged()
    whole, first, second = (with_dropout() for _ in range(3))
    train_in_bf16(whole, data)

    def kill(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_bf16(first, data, checkpoints=Checkpoints(tmp_path), hooks=Hooks(on_step=[kill]))
    train_in_bf16(second, data, checkpoints=Checkpoints(tmp_path))
    assert same(weights_of(whole), weights_of(second))
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights_of(whole).values())
    assert not same(weights_of(whole), weights_of(with_dropout()), 5e-3)  # it did learn


@pytest.mark.parametrize("pooling", [None, "cls", "mean", "pooler"])
def test_bf16_outputs_are_float32_and_near_the_exact_ones(pooling):
    data, model = ragged(), classifier("bert", initializer_range=0.2)
    rows = np.arange(len(data))
    exact, rounded = (
        next(infer(model, data, rows, processes=ALONE, precision=precision, pooling=pooling))
        for precision in (Precision("float32", "cpu"), BF16)
    )
    assert rounded.logits.dtype == np.float32 and not np.array_equal(exact.logits, rounded.logits)
    np.testing.assert_allclose(rounded.logits, exact.logits, atol=0.15)
    if pooling:
        assert rounded.features.dtype == np.float32
        np.testing.assert_allclose(rounded.features, exact.features, atol=0.15)


def test_weights_are_cast_once_a_step():
    """A weight's gradient comes through one cast in every micro-batch of a step, through another in the next step."""
    data, model, casts = ragged(), classifier("bert"), []
    linear = model.model.bert.encoder.layer[0].output.dense
    linear.register_forward_hook(lambda module, inputs, out: casts.append(cast_of(out.grad_fn)))

    def cast_of(node):
        while not node.name().startswith("ToCopyBackward"):
            node = node.next_functions[-1][0]  # the weight is a matrix product's last operand
        return node

    settings = TrainingSettings(tokens_per_micro_batch=90)
    batches = UniformBatches(everything(data), batch_size=20, seed=3, epochs=1)
    train(model, data, batches, settings, processes=ALONE, precision=BF16)
    assert len(casts) > 6 and len(set(map(id, casts))) == 2


def test_bf16_without_the_instructions_is_float32_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(forward, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(forward, "cpu_bf16_time", lambda: 0.5)
    assert choose_precision(torch.device("cpu"), bf16=True).dtype == torch.bfloat16
    assert not caplog.records
    monkeypatch.setattr(forward, "cpu_has_bf16", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert choose_precision(torch.device("cpu"), bf16=True).name == "float32"
        assert choose_precision(torch.device("cpu"), fp16=True).name == "float32"
    assert [r.getMessage().split()[0].strip(":") for r in caplog.records] == ["--bf16", "--fp16"]


def test_bf16_that_is_slower_is_said_and_kept(monkeypatch, caplog):
    monkeypatch.setattr(forward, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(forward, "cpu_bf16_time", lambda: 1.94)
    assert choose_precision(torch.device("cpu"), bf16=True).name == "bf16"
    assert "1.9 times as long as in float32" in caplog.text


def test_a_product_takes_some_time_in_both_precisions():
    assert 1e-3 < forward.cpu_bf16_time() < 1e3


def test_a_torch_that_cannot_be_asked_has_no_bf16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not forward.cpu_has_bf16()
