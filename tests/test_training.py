"""The loop: exact batches whatever the micro-batches, weights, seeds, continuing after a kill."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForSequenceClassification

from tests import tiny
from utils.data.tokens import Encoded
from utils.errors import InputError, Interrupted, RunFailed
from utils.flags import TrainingSettings
from utils.models.classifier import Classifier
from utils.models.collate import collate, micro_batches
from utils.models.distributed import Processes
from utils.models.families import freeze_lower_layers
from utils.models.forward import Precision
from utils.selection.selection import Selection
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.loop import Hooks, train
from utils.training.optimizer import learning_rate_schedule, make_optimizer
from utils.training.progress import Meter

ALONE = Processes(0, 1, torch.device("cpu"))
FLOAT32 = Precision("float32", "cpu")


def classifier(family="albert", seed=0, **changes):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(tiny.config(family, num_labels=3, **changes))
    return Classifier(model, None, tiny.LABELS)


def ragged(n=40, seed=0, segments=True):
    """Random token rows of 3 to 40 tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 41, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, 25, offsets[-1]).astype(np.int32)
    types = np.concatenate([np.arange(k) > k // 2 for k in lengths]).astype(np.uint8) if segments else None
    return Encoded(ids, types, offsets, rng.integers(0, 3, n), 0, "data")


def everything(data, weights=None):
    n = len(data)
    return Selection(np.arange(n), np.ones(n) if weights is None else weights, n, data.fingerprint)


def run(model, data, selection, *, batch_size=8, epochs=2.0, checkpoints=None, hooks=None, max_steps=None, **settings):
    settings = {"learning_rate": 1e-3, "seed": 3, "save_steps": 3} | settings
    batches = UniformBatches(
        selection, batch_size=batch_size, seed=settings["seed"], epochs=epochs, max_steps=max_steps
    )
    return train(
        model, data, batches, TrainingSettings(**settings), processes=ALONE, precision=FLOAT32,
        checkpoints=checkpoints, hooks=hooks,
    )  # fmt: skip


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def same(a, b, tolerance=0.0):
    return (
        all(torch.allclose(a[k], b[k], rtol=0, atol=tolerance) for k in a)
        if tolerance
        else all(torch.equal(a[k], b[k]) for k in a)
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokens", [40, 100, 1000, 5000])
def test_micro_batches_cover_the_batch_within_the_budget(tokens, packed):
    lengths = np.random.default_rng(0).integers(3, 60, 77)
    parts = micro_batches(lengths, tokens, packed=packed)
    assert sorted(np.concatenate(parts)) == list(range(77))
    assert all(len(p) == 1 or (lengths[p].sum() if packed else lengths[p].max() * len(p)) <= tokens for p in parts)
    if packed:
        assert len(parts) <= lengths.sum() / (tokens - 60) + 1 if tokens > 60 else True
    assert (np.diff(lengths[np.concatenate(parts)]) <= 0).all()


def test_micro_batches_pad_little_at_a_batch_of_512():
    lengths = np.clip(np.random.default_rng(0).lognormal(3.58, 0.42, 512).astype(int), 8, 128)
    computed = sum(lengths[p].max() * len(p) for p in micro_batches(lengths, 1024))
    assert computed < 1.05 * lengths.sum() < 0.4 * 512 * 128


@pytest.mark.parametrize("family", ["albert", "bert", "roberta", "distilbert"])
def test_one_step_of_micro_batches_has_the_gradient_of_one_padded_batch(family):
    data = ragged(segments=family in ("albert", "bert"))
    weights = np.random.default_rng(1).uniform(0, 3, len(data)).astype(np.float32)
    ours, reference = classifier(family), classifier(family)
    reference.model.train()
    batch = collate(data, np.arange(len(data)), torch.device("cpu"))
    types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
    logits = reference.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **types).logits
    losses = F.cross_entropy(logits, torch.from_numpy(data.labels), reduction="none")
    (losses * torch.from_numpy(weights)).mean().backward()
    # SGD's parameter change is its gradient; AdamW would hide the scale, so look at the gradient itself.
    seen = {}

    class Spy(Processes):
        def sum_gradients(self, parameters):
            seen.update({n: p.grad.clone() for n, p in ours.model.named_parameters()})

    batches = UniformBatches(everything(data, weights), batch_size=len(data), seed=0, epochs=1)
    settings = TrainingSettings(tokens_per_micro_batch=90)
    train(ours, data, batches, settings, processes=Spy(0, 1, torch.device("cpu")), precision=FLOAT32)
    for name, parameter in reference.model.named_parameters():
        assert torch.allclose(seen[name], parameter.grad, atol=1e-5), name


def test_weight_two_is_the_example_twice():
    data = ragged(6)
    doubled = Selection(np.array([0, 1, 2, 3, 4, 5, 5]), np.ones(7), 6, data.fingerprint)
    # The mean is over examples, so 6 examples with one of weight 2 are the 7 ones scaled by 7/6.
    weighted = everything(data, np.array([1, 1, 1, 1, 1, 2]) * 6 / 7)
    a, b = classifier(), classifier()
    run(a, data, doubled, batch_size=7, epochs=3, max_grad_norm=0.0)
    run(b, data, weighted, batch_size=6, epochs=3, max_grad_norm=0.0)
    assert same(weights_of(a), weights_of(b), 2e-5)


def test_a_step_is_no_longer_than_the_gradient_norm_allows(monkeypatch):
    """With plain SGD at a learning rate of 1 a step is the gradient itself, so its length shows the clipping."""
    sgd = lambda model, settings: torch.optim.SGD(model.parameters(), lr=1.0)  # noqa: E731
    monkeypatch.setattr("utils.training.step.make_optimizer", sgd)
    data = ragged(8)

    def step(max_grad_norm):
        model = classifier()
        before = weights_of(model)
        run(
            model, data, everything(data), epochs=1, learning_rate=1.0, lr_scheduler_type="constant",
            max_grad_norm=max_grad_norm,
        )  # fmt: skip
        return torch.cat([(before[name] - after).flatten() for name, after in weights_of(model).items()])

    free = step(0.0)
    for limit in (0.1, 0.2):
        assert limit < free.norm()
        torch.testing.assert_close(step(limit), free * (limit / free.norm()), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(step(float(2 * free.norm())), free)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_frozen_layers_and_embeddings_keep_their_bits_and_the_rest_learns(family):
    data, model = ragged(segments=family == "bert"), classifier(family)
    before = weights_of(model)
    freeze_lower_layers(model.model, 1)
    run(model, data, everything(data), weight_decay=0.1)
    frozen = {name for name, after in weights_of(model).items() if torch.equal(before[name], after)}
    assert frozen == {name for name in before if ".embeddings." in name or ".layer.0." in name}


def test_layers_that_cannot_be_frozen_are_refused():
    with pytest.raises(InputError, match="it can only be trained whole"):
        freeze_lower_layers(classifier("albert").model, 1)
    with pytest.raises(InputError, match="--freeze_layers 3: the model has 2 layers"):
        freeze_lower_layers(classifier("bert").model, 3)


def test_the_seed_decides_the_weights():
    data, results = ragged(), []
    for seed in (3, 3, 4):
        model = classifier()
        run(model, data, everything(data), seed=seed)
        results.append(weights_of(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_every_epoch_visits_every_example_once_and_the_last_batch_counts_its_own_size():
    data, seen = ragged(21), []
    hooks = Hooks(on_batch=[lambda step, rows, logits, losses: seen.append((step, rows))])
    summary = run(classifier(), data, everything(data), hooks=hooks)
    assert summary["steps"] == 6 and summary["examples"] == 42
    for epoch in (0, 1):
        rows = np.concatenate([r for step, r in seen if step // 3 == epoch])
        assert sorted(rows) == list(range(21))
    assert sum(len(r) for step, r in seen if step == 2) == 5


def test_every_epoch_has_an_order_of_its_own():
    data = ragged(20)
    batches = UniformBatches(everything(data), batch_size=5, seed=0, epochs=4)
    orders = {tuple(np.concatenate([batches.draw(4 * epoch + k)[0] for k in range(4)])) for epoch in range(4)}
    assert len(orders) == 4


def test_an_ordered_selection_is_visited_in_its_order():
    data = ragged(12)
    order = np.random.default_rng(0).permutation(12)
    selection = Selection(order, np.ones(12), 12, data.fingerprint, ordered=True)
    batches = UniformBatches(selection, batch_size=5, seed=0, epochs=1)
    assert np.array_equal(np.concatenate([batches.draw(step)[0] for step in range(3)]), order)


def test_padding_is_counted_on_all_processes():
    """This process computed 30 tokens and the other one 90; of these 120, 100 are no padding."""

    class OneOfTwo(Processes):
        def sum(self, value):
            return value + 90

    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(0.5), examples=8, tokens=100, computed_tokens=30)
    meter.read(OneOfTwo(0, 2, torch.device("cpu")))
    assert meter.summary()["computed_tokens"] == 120 and meter.summary()["padded_share"] == pytest.approx(1 / 6)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_after", [1, 4, 5, 9])
def test_a_killed_run_continues_to_the_same_bits(tmp_path, kill_after):
    data = ragged()
    config = tiny.config("bert", num_labels=3)
    config.hidden_dropout_prob = 0.2

    def fresh():
        torch.manual_seed(0)
        return Classifier(AutoModelForSequenceClassification.from_config(copy.deepcopy(config)), None, tiny.LABELS)

    whole = fresh()
    run(whole, data, everything(data))

    def kill(done):
        if done == kill_after:
            raise Killed

    first = fresh()
    with pytest.raises(Killed):
        run(first, data, everything(data), checkpoints=Checkpoints(tmp_path), hooks=Hooks(on_step=[kill]))
    second = fresh()
    summary = run(second, data, everything(data), checkpoints=Checkpoints(tmp_path))
    assert same(weights_of(whole), weights_of(second))
    assert summary["examples"] == 80


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_taken(tmp_path, caplog):
    data = ragged()
    whole = classifier()
    run(whole, data, everything(data))
    checkpoints = Checkpoints(tmp_path, keep=3)
    run(classifier(), data, everything(data), checkpoints=checkpoints)
    newest = sorted(tmp_path.glob("step_*"))[-1]
    damaged = newest / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    again = classifier()
    run(again, data, everything(data), checkpoints=checkpoints)
    assert "damaged" in caplog.text and newest.name in caplog.text
    assert same(weights_of(whole), weights_of(again))


def test_a_non_finite_loss_stops_with_step_and_examples():
    data = ragged()
    with pytest.raises(RunFailed, match=r"the loss is nan at step \d+ \(example_index \d+"):
        run(classifier(), data, everything(data), learning_rate=1e30, max_grad_norm=0.0)


@pytest.mark.parametrize(
    ("words", "overwrite"),
    [
        ([], False),
        (["--overwrite_output_dir"], True),
        ('{"overwrite_output_dir": true}', True),
        ('{"overwrite_output_dir": false}', False),
        ("[]", False),
    ],
)
def test_a_stop_says_how_to_go_on_and_not_how_to_begin_afresh(tmp_path, monkeypatch, words, overwrite):
    if isinstance(words, str):
        (tmp_path / "flags.json").write_text(words)
        words = [str(tmp_path / "flags.json")]
    monkeypatch.setattr("sys.argv", ["run_glue.py", *words])
    data, stop = ragged(), Hooks(on_step=[lambda done: os.kill(os.getpid(), signal.SIGTERM)])
    with pytest.raises(Interrupted) as stopped:
        run(classifier(), data, everything(data), checkpoints=Checkpoints(tmp_path / "out"), hooks=stop)
    way = "the same command again without --overwrite_output_dir" if overwrite else "the same command again"
    assert str(stopped.value) == f"SIGTERM at step 1 of 10; the state is saved. Run {way} to continue"


def test_a_stop_saves_no_weights_of_a_diverged_training(tmp_path, monkeypatch):
    """On a GPU the loss is read when there is something to log or to save, not in every step."""
    monkeypatch.setattr("utils.training.step.require_finite", lambda *args: None)
    data, model = ragged(), classifier()

    def diverge(done):
        if done == 7:
            torch.nn.init.constant_(next(model.model.parameters()), float("nan"))
        if done == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunFailed, match="the loss is nan at steps 7 to 8"):
        run(model, data, everything(data), checkpoints=Checkpoints(tmp_path), hooks=Hooks(on_step=[diverge]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000005", "step_00000006"]


def test_out_of_memory_halves_the_micro_batches_and_changes_nothing_else(monkeypatch, caplog):
    from utils.models.forward import forward

    data = ragged()
    expected = classifier()
    run(expected, data, everything(data), tokens_per_micro_batch=400)
    real, failures = forward, []

    def scarce(classifier, model, batch):
        if batch.input_ids.numel() > 150:
            failures.append(batch.input_ids.numel())
            raise torch.OutOfMemoryError("no memory")
        return real(classifier, model, batch)

    monkeypatch.setattr("utils.training.step.forward", scarce)
    model = classifier()
    run(model, data, everything(data), tokens_per_micro_batch=400)
    assert failures and "out of memory" in caplog.text
    assert same(weights_of(expected), weights_of(model), 1e-4)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_learning_rates_are_the_librarys(name):
    from transformers import get_scheduler

    settings = TrainingSettings(learning_rate=2e-3, warmup_ratio=0.1, lr_scheduler_type=name)
    ours = learning_rate_schedule(settings, 50)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2e-3)
    schedule = get_scheduler(name, optimizer, 5, 50)
    for step in range(50):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()


def test_no_weight_decay_on_biases_and_norms():
    model = classifier("bert").model
    optimizer = make_optimizer(model, TrainingSettings(weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert all(n.endswith("weight") and "LayerNorm" not in n for n in decayed)
    assert all(n.endswith("bias") or "LayerNorm" in n for n in plain)
    assert optimizer.param_groups[1]["weight_decay"] == 0


def test_no_weight_decay_on_normalisation_layers_of_a_familys_own():
    """LlamaRMSNorm is no torch.nn.LayerNorm, and its parameter is called weight."""
    sizes = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_labels=3, pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config)
    decayed, plain = make_optimizer(model, TrainingSettings(weight_decay=0.1)).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in plain["params"]} == {n for n in names.values() if "norm" in n}
    assert len(plain["params"]) == 3 and len(decayed["params"]) == len(names) - 3
