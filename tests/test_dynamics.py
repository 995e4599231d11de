"""Training-dynamics measures against naive loops, GraNd against autograd, the recorder and its file."""

import itertools

import numpy as np
import pytest

from utils.data.logits import error_norm, grad_norm
from utils.errors import InputError, RunFailed
from utils.selection.data_map import plot_data_map
from utils.selection.dynamics import Dynamics
from utils.training.recorder import DynamicsRecorder

NAMES = ("contradiction", "entailment", "neutral")


def make_dynamics(snapshots=5, n=40, seed=0, unseen=True) -> Dynamics:
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(snapshots, n, 3))).astype(np.float16)
    if unseen:
        logits[1, 3] = np.nan  # seen in the other snapshots
        logits[:, 5] = np.nan  # never seen
    return Dynamics(logits, rng.integers(3, size=n), NAMES, np.arange(snapshots) + 1.0, "eval", "f" * 32)


def naive(dynamics: Dynamics, i: int) -> dict:
    """Every measure of example i, from its definition."""
    gold, p_gold, right, margins, errors, losses = int(dynamics.labels[i]), [], [], [], [], []
    for z in dynamics.logits[:, i].astype(np.float64):
        if np.isnan(z).any():
            continue
        p = np.exp(z) / np.exp(z).sum()
        y = np.eye(3)[gold]
        p_gold.append(p[gold])
        right.append(int(np.argmax(z)) == gold)
        margins.append(z[gold] - max(z[j] for j in range(3) if j != gold))
        errors.append(np.sqrt(((p - y) ** 2).sum()))
        losses.append(-np.log(p[gold]))
    forgotten = sum(a and not b for a, b in itertools.pairwise(right))
    return {
        "confidence": np.mean(p_gold),
        "variability": np.std(p_gold),
        "correctness": np.mean(right),
        "aum": np.mean(margins),
        "el2n": np.mean(errors),
        "loss": np.mean(losses),
        "forgetting_counts": forgotten if any(right) else dynamics.num_snapshots,
    }


@pytest.mark.parametrize(
    "name", ["confidence", "variability", "correctness", "aum", "el2n", "loss", "forgetting_counts"]
)
def test_measures_equal_their_definitions(name):
    dynamics = make_dynamics()
    values = getattr(dynamics, name)()
    assert values.dtype == np.float32 and np.isnan(values[5])
    for i in range(dynamics.n_total):
        if i != 5:
            assert values[i] == pytest.approx(naive(dynamics, i)[name], abs=2e-5)


def test_never_learnt_counts_above_every_forgotten_example():
    z = np.zeros((6, 2, 3), dtype=np.float16)
    z[:, 0, 1] = 1  # always wrong
    z[::2, 1, 0] = 1  # right, wrong, right, wrong, right, wrong: as often forgotten as can be
    z[1::2, 1, 1] = 1
    dynamics = Dynamics(z, np.array([0, 0]), NAMES, np.arange(6), "train", "f")
    assert dynamics.forgetting_counts().tolist() == [6, 3]
    assert dynamics.never_learnt().tolist() == [True, False]


def test_forgetting_looks_past_snapshots_in_which_the_example_was_not_seen():
    """A letter a snapshot: r right, w wrong, - not seen."""
    histories = {"rw": 1, "r-w": 1, "r--w-w": 1, "r-w-r-w": 2, "r-r": 0, "w-r": 0, "-r": 0, "r-": 0}
    z = np.full((7, len(histories), 3), np.nan, dtype=np.float16)
    for i, history in enumerate(histories):
        for snapshot, letter in enumerate(history):
            if letter != "-":
                z[snapshot, i] = [1, 0, 0] if letter == "r" else [0, 1, 0]
    dynamics = Dynamics(z, np.zeros(len(histories), dtype=np.int64), NAMES, np.arange(7), "train", "f")
    assert dict(zip(histories, dynamics.forgetting_counts().tolist(), strict=True)) == histories


def test_grand_is_autograds_gradient_norm_of_the_classifier_layer():
    import torch

    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 7)).astype(np.float32)
    labels = rng.integers(3, size=12)
    torch.manual_seed(0)
    layer = torch.nn.Linear(7, 3)
    logits = layer(torch.from_numpy(features))
    true = []
    for i in range(12):
        layer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits[i : i + 1], torch.tensor([labels[i]]))
        loss.backward(retain_graph=True)
        true.append(float(torch.cat([layer.weight.grad.ravel(), layer.bias.grad]).norm()))
    ours = grad_norm(logits.detach().numpy(), labels, features)
    np.testing.assert_allclose(ours, true, rtol=1e-5)


def test_error_norm_does_not_overflow_and_stays_in_range():
    z = np.array([[1e4, -1e4, 0.0], [0.0, 1e4, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(error_norm(z, np.array([0, 0])), [0, np.sqrt(2)], atol=1e-6)


def test_save_then_load_is_identity(tmp_path):
    dynamics = make_dynamics()
    dynamics.save(tmp_path / "dynamics.npz")
    again = Dynamics.load(tmp_path / "dynamics.npz")
    np.testing.assert_array_equal(again.logits, dynamics.logits)
    np.testing.assert_array_equal(again.labels, dynamics.labels)
    assert (again.class_names, again.mode, again.fingerprint) == (NAMES, "eval", "f" * 32)
    assert again.epochs.tolist() == dynamics.epochs.tolist() and again.n_total == 40


def test_a_file_of_another_kind_is_one_clear_error(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for path in (tmp_path / "other.npz", tmp_path / "missing.npz"):
        with pytest.raises(InputError, match=str(path.name)):
            Dynamics.load(path)


ABOUT = {"labels": np.zeros(6, dtype=np.int64), "class_names": NAMES, "mode": "train", "fingerprint": "f"}


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float16)


@pytest.fixture
def saved(tmp_path, logits):
    """The folder of a recorder whose run was killed after 3 steps: snapshot 0 is whole, of snapshot 1 rows 1 and 4."""
    recorder = DynamicsRecorder(tmp_path / "dynamics", 6, 3, 2)
    recorder.record(0, np.arange(3), logits[0, :3])
    recorder.save(1)
    recorder.record(0, np.arange(3, 6), logits[0, 3:])
    recorder.record(1, np.array([4, 1]), logits[1, [4, 1]])
    recorder.save(3)
    recorder.record(1, np.array([0]), logits[1, [0]])  # lost by the kill
    return tmp_path / "dynamics"


def test_recorder_goes_on_with_what_was_saved(saved, tmp_path, logits):
    recorder = DynamicsRecorder(saved, 6, 3, 2)
    recorder.resume(3)
    recorder.record(1, np.array([2]), logits[1, [2]])
    recorder.finish(tmp_path / "dynamics.npz", epochs=[1, 2], **ABOUT)
    found = Dynamics.load(tmp_path / "dynamics.npz").logits
    np.testing.assert_array_equal(found[0], logits[0])
    np.testing.assert_array_equal(found[1, [4, 1, 2]], logits[1, [4, 1, 2]])
    assert np.isnan(found[1, [0, 3, 5]]).all()
    assert not saved.exists()


def test_recorder_starts_afresh_at_the_first_step(saved, tmp_path):
    recorder = DynamicsRecorder(saved, 6, 3, 2)
    recorder.resume(0)
    recorder.finish(tmp_path / "fresh.npz", epochs=[1, 2], **ABOUT)
    assert np.isnan(Dynamics.load(tmp_path / "fresh.npz").logits).all()


def flip_the_last_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("name", ["snapshot_0_step_3.npy", "snapshot_1_step_3.npy", "record.json"])
@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-3]), flip_the_last_bit]
)
def test_recorder_refuses_to_go_on_with_damaged_snapshots(saved, name, damage):
    damage(saved / name)
    recorder = DynamicsRecorder(saved, 6, 3, 2)
    with pytest.raises(InputError, match=r"first 3 steps are damaged.*--overwrite_output_dir"):
        recorder.resume(3)


@pytest.mark.parametrize(("n", "steps"), [(7, 3), (6, 4)])
def test_recorder_refuses_what_is_of_other_data_or_of_too_few_steps(saved, n, steps):
    with pytest.raises(InputError, match="other or earlier steps"):
        DynamicsRecorder(saved, n, 3, 2).resume(steps)


def test_recorder_refuses_nan_which_would_look_like_a_row_not_seen(tmp_path):
    with pytest.raises(RunFailed, match="logits of row 5 are NaN"):
        DynamicsRecorder(tmp_path, 6, 3, 1).record(0, np.array([2, 5]), np.array([[0, 0, 0], [0, np.nan, 0]]))


def test_recorder_keeps_huge_logits_finite(tmp_path):
    recorder = DynamicsRecorder(tmp_path / "dynamics", 1, 3, 1)
    recorder.record(0, np.array([0]), np.array([[1e6, -1e6, 0.0]], dtype=np.float32))
    recorder.finish(
        tmp_path / "d.npz", labels=np.array([0]), epochs=[1], class_names=NAMES, mode="train", fingerprint="f"
    )
    assert Dynamics.load(tmp_path / "d.npz").correctness().tolist() == [1.0]


def test_regression_has_no_measures():
    dynamics = Dynamics(np.zeros((2, 3, 1), dtype=np.float16), np.zeros(3, dtype=np.float32), (), [1, 2], "eval", "f")
    with pytest.raises(InputError, match="regression"):
        dynamics.confidence()


def test_the_data_map_is_drawn(tmp_path):
    plot_data_map(make_dynamics(n=300), tmp_path / "map.png", max_points=100)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
