"""`--cache_frozen`: passes that start above the frozen layers give what whole passes give without dropout below."""

import numpy as np
import pytest
import torch

from tests import tiny
from tests.test_training import ALONE, FLOAT32, classifier, everything, ragged, same, weights_of
from utils.errors import InputError
from utils.flags import InferenceSettings, RunSettings, TrainingSettings
from utils.models import forward
from utils.models.collate import collate
from utils.models.families import freeze_lower_layers
from utils.models.forward import Precision
from utils.models.frozen import FrozenOutputs
from utils.models.session import Session
from utils.training.batches import UniformBatches
from utils.training.loop import train

SETTINGS = TrainingSettings(learning_rate=1e-3, seed=3, tokens_per_micro_batch=90)


def session_of(folder, family="bert", precision=FLOAT32):
    model = classifier(family)
    freeze_lower_layers(model.model, 1)
    return Session(model, ALONE, precision, InferenceSettings(cache_dir=str(folder), tokens_per_micro_batch=200))


def trained(session, data, selection, frozen):
    batches = UniformBatches(selection, batch_size=8, seed=3, epochs=2)
    train(session.classifier, data, batches, SETTINGS, processes=ALONE, precision=session.precision, frozen=frozen)
    return weights_of(session.classifier)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_cached_and_whole_passes_agree(family, packed, tmp_path, monkeypatch):
    if not packed:
        for module in ("utils.models.frozen", "utils.training.step"):
            monkeypatch.setattr(f"{module}.use_packing", lambda *args, **options: False)
    data = ragged(segments=family == "bert")
    selection = everything(data).take(np.arange(5, 30))
    whole = trained(session_of(tmp_path, family), data, selection, None)
    session = session_of(tmp_path, family)
    frozen = FrozenOutputs(session, data, selection.indices, 1)
    calls = []
    session.classifier.model.base_model.embeddings.register_forward_hook(lambda *_: calls.append("pass"))
    cached = trained(session, data, selection, frozen)
    assert same(whole, cached, 2e-4) and calls
    assert not same(whole, weights_of(session_of(tmp_path, family).classifier), 2e-3)  # training did change them


def test_frozen_layers_are_not_run_and_come_back(tmp_path):
    data, session = ragged(), session_of(tmp_path)
    model = session.classifier.model.eval()
    batch = collate(data, np.arange(6), torch.device("cpu"), packed=True)
    with torch.no_grad():
        before = forward.forward(session.classifier, model, batch)
        frozen = FrozenOutputs(session, data, np.arange(10), 1)
        inside = []
        handle = model.bert.encoder.layer[0].attention.register_forward_hook(lambda *_: inside.append(1))
        with frozen.resume(batch):
            torch.testing.assert_close(forward.forward(session.classifier, model, batch), before, atol=1e-5, rtol=0)
        assert not inside
        assert torch.equal(forward.forward(session.classifier, model, batch), before) and inside
        handle.remove()


def test_an_entry_is_used_again_until_weights_rows_or_its_own_bytes_change(tmp_path, caplog):
    data = ragged()
    entries = lambda: sorted((tmp_path / "frozen").iterdir())  # noqa: E731

    def states(session, rows=10):
        return np.array(FrozenOutputs(session, data, np.arange(rows), 1)._states)

    first = states(session_of(tmp_path))
    (entry,) = entries()
    made = (entry / "states.npy").stat().st_mtime_ns
    assert np.array_equal(states(session_of(tmp_path)), first) and (entry / "states.npy").stat().st_mtime_ns == made
    damaged = bytearray((entry / "states.npy").read_bytes())
    damaged[-3] ^= 1
    (entry / "states.npy").write_bytes(damaged)
    assert np.array_equal(states(session_of(tmp_path)), first) and "are damaged" in caplog.text
    changed = session_of(tmp_path)
    with torch.no_grad():
        changed.classifier.model.bert.encoder.layer[0].output.dense.bias += 1
    assert not np.array_equal(states(changed), first)
    states(session_of(tmp_path), rows=9)
    assert len(entries()) == 3


def test_bf16_states_take_half_the_room_and_lie_near_the_exact_ones(tmp_path):
    data = ragged()
    exact, rounded = (
        FrozenOutputs(session_of(tmp_path, precision=Precision(name, "cpu")), data, np.arange(10), 1)
        for name in ("float32", "bf16")
    )
    assert rounded._states.itemsize == 2 and exact._states.itemsize == 4
    batch = collate(data, np.arange(10), torch.device("cpu"), packed=True)
    expected = exact._states_of(batch)
    assert expected.dtype == rounded._states_of(batch).dtype == torch.float32
    torch.testing.assert_close(rounded._states_of(batch), expected, atol=0.05, rtol=0.02)


def test_what_cannot_be_cached_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="with --freeze_layers 2 of 2 no layer is trained"):
        FrozenOutputs(session_of(tmp_path), ragged(), np.arange(4), 2)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.models.frozen.reserve_space", full)
    with pytest.raises(InputError, match=r"no room for 0\.0 GB in .*frozen .No space left"):
        FrozenOutputs(session_of(tmp_path), ragged(), np.arange(4), 1)
    assert not list((tmp_path / "frozen").iterdir())


def test_the_script_says_what_it_does_and_refuses_what_cannot_work(tmp_path):
    data, config = tiny.write_mnli(tmp_path / "data"), tiny.write_config(tmp_path / "config", "bert")
    words = [
        "--task_name",
        "mnli",
        "--data_dir",
        data,
        "--config_name",
        config,
        "--tokenizer_name",
        config,
        "--do_train",
    ]
    words += ["--output_dir", tmp_path / "out", "--max_steps", "3", "--cache_dir", tmp_path / "cache", "--cache_frozen"]
    done = tiny.run_script("run_glue.py", *words, "--freeze_layers", "1")
    assert "the outputs of 1 frozen layers take 0.0 GB in" in done.stderr and "run without dropout" in done.stderr
    for others in (
        {},
        {"freeze_layers": 1, "torch_compile": True},
        {"freeze_layers": 1, "gradient_checkpointing": True},
    ):
        with pytest.raises(InputError, match="--cache_frozen needs --freeze_layers 1 or more"):
            RunSettings(do_train=True, config_name="x", cache_frozen=True, **others).check()
