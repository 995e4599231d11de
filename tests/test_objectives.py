"""Objectives: losses and gradients against naive references, equality with plain training, resume, files, dfr."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests import forked, tiny
from tests.test_training import ALONE, FLOAT32, Killed, classifier, everything, ragged, same, weights_of
from utils.data.examples import load_split
from utils.data.sources import open_data
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.flags import RunSettings, TrainingSettings
from utils.models.families import final_linear
from utils.models.session import Session
from utils.selection.ingredients import InputMaker
from utils.selection.selection import Selection
from utils.training import finetune, last_layer
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.group_dro import GroupDro
from utils.training.loop import Hooks, train
from utils.training.objectives import erm, learned_mixin, log_bias, objective_of, poe, scaled_teacher, soft_targets
from utils.training.shortcut import Groups, Shortcut, find_groups, find_shortcut, read_bias, save_bias

N, C = 40, 3


def settings(objective, **more):
    return RunSettings(
        **{"model_name_or_path": "m", "task_name": "MNLI", "do_train": True, "objective": objective} | more
    )


def probabilities(seed, n=N):
    return np.random.default_rng(seed).dirichlet(np.ones(C), n).astype(np.float32)


def shortcut(seed=0):
    groups = Groups(np.random.default_rng(seed).integers(0, 3, N), ("a", "b", "c"))
    return {
        "poe": Shortcut(p_bias=probabilities(seed)),
        "learned_mixin": Shortcut(p_bias=probabilities(seed)),
        "conf_reg": Shortcut(p_bias=probabilities(seed), teacher=probabilities(seed + 1)),
        "group_dro": Shortcut(groups=groups),
    }


def run(model, data, objective, known, *, selection=None, hooks=None, checkpoints=None, epochs=2.0, more=None, **given):
    """`train` as the recipe calls it, with batches of 8."""
    own = TrainingSettings(**({"learning_rate": 1e-3, "seed": 3, "save_steps": 3} | given))
    batches = UniformBatches(selection or everything(data), batch_size=8, seed=3, epochs=epochs)
    if known.groups:
        batches = GroupDro(batches, known.groups, step_size=0.5, processes=ALONE)
    with objective_of(settings(objective, **(more or {})), known, model.model, data.labels, ALONE.device) as function:
        train(
            model, data, batches, own, processes=ALONE, precision=FLOAT32, objective=function, hooks=hooks,
            checkpoints=checkpoints,
        )  # fmt: skip
    return batches


# ---------------------------------------------------------------------------------------------- against naive references
def softmax(values):
    exps = [np.exp(v - max(values)) for v in values]
    return [e / sum(exps) for e in exps]


def compare(objective, naive, rows, labels):
    """Losses, and gradients by the logits against central differences of the naive loss, in float64."""
    logits = np.random.default_rng(9).normal(size=(len(rows), C))
    given = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    losses = objective(given, torch.from_numpy(labels), rows)
    expected = [naive(z, row, label) for z, row, label in zip(logits, rows, labels, strict=True)]
    assert losses.shape == (len(rows),)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-5)
    losses.sum().backward()
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        for c in range(C):
            step = np.eye(C)[c] * 1e-5
            slope = (naive(logits[i] + step, row, label) - naive(logits[i] - step, row, label)) / 2e-5
            assert float(given.grad[i, c]) == pytest.approx(slope, abs=1e-4)


ROWS, LABELS = np.array([7, 0, 39, 7, 12]), np.array([0, 1, 2, 0, 1])


def test_poe_is_the_loss_of_the_product():
    p_bias = probabilities(0)

    def naive(z, row, label):
        product = [p * b for p, b in zip(softmax(z), p_bias[row].astype(float), strict=True)]
        return -np.log(product[label] / sum(product))

    compare(poe(torch.from_numpy(log_bias(p_bias))), naive, ROWS, LABELS)


def test_conf_reg_is_the_cross_entropy_with_the_scaled_teacher():
    p_bias, teacher, labels = probabilities(0), probabilities(1), np.zeros(N, dtype=np.int64)
    labels[ROWS] = LABELS

    def naive(z, row, label):
        scaled = [float(t) ** (1 - float(p_bias[row, label])) for t in teacher[row]]
        return -sum(s / sum(scaled) * np.log(p) for s, p in zip(scaled, softmax(z), strict=True))

    targets = torch.from_numpy(scaled_teacher(teacher, p_bias, labels).astype(np.float32))
    compare(soft_targets(targets), naive, ROWS, LABELS)


@pytest.mark.parametrize("family", ["albert", "bert", "roberta", "distilbert"])
def test_learned_mixin_is_the_published_loss_on_the_features_of_the_classifier(family):
    """The scale's own gradient too, by central differences; the model is left as it was."""
    model, p_bias = classifier(family).model.eval(), probabilities(0)
    names = set(model.state_dict())
    batch = {"input_ids": torch.randint(5, 20, (5, 6)), "attention_mask": torch.ones(5, 6, dtype=torch.long)}
    with learned_mixin(model, torch.from_numpy(log_bias(p_bias)), 0.3, seed=1) as objective:
        scale, seen = model.bias_scale, []
        handle = final_linear(model).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
        logits = model(**batch).logits
        losses = objective(logits, torch.from_numpy(LABELS), ROWS)

        def naive(z, row, label, h, weight, offset):
            g = np.log1p(np.exp(float(weight @ h) + offset))
            bias = softmax([g * np.log(float(b)) for b in p_bias[row]])
            product = [p * b for p, b in zip(softmax(z), bias, strict=True)]
            return -np.log(product[label] / sum(product)) - 0.3 * sum(b * np.log(b) for b in bias)

        weight, offset = scale.weight[0].detach().double().numpy(), float(scale.bias)
        given = [logits.detach().double().numpy(), ROWS, LABELS, seen[0].double().numpy()]
        total = lambda w, b: [naive(*one, w, b) for one in zip(*given, strict=True)]  # noqa: E731
        np.testing.assert_allclose(losses.detach(), total(weight, offset), rtol=1e-5)
        losses.sum().backward()
        step = np.eye(len(weight))[2] * 1e-5
        slope = (sum(total(weight + step, offset)) - sum(total(weight - step, offset))) / 2e-5
        assert float(scale.weight.grad[0, 2]) == pytest.approx(slope, abs=1e-4)
        slope = (sum(total(weight, offset + 1e-5)) - sum(total(weight, offset - 1e-5))) / 2e-5
        assert float(scale.bias.grad[0]) == pytest.approx(slope, abs=1e-4)
        handle.remove()
    assert set(model.state_dict()) == names and not final_linear(model)._forward_pre_hooks


def test_group_dro_weighs_the_batch_by_group_weights_that_follow_the_losses():
    """Three steps by hand: repeated rows, weights, a group that a batch lacks; losses from two processes."""
    rng, of = np.random.default_rng(0), np.array([0, 0, 1, 1, 2, 2])
    drawn = [np.array([0, 2, 2, 1]), np.array([4, 5, 2, 0]), np.array([3, 3, 5, 1])]
    weights = [w.astype(np.float32) for w in (np.ones(4), np.array([2, 1, 0.5, 3.0]), np.array([1, 1, 4, 0.25]))]

    class Drawn:
        def draw(self, step, probe=None):
            return drawn[step], weights[step]

        def observe(self, rows, logits, losses):
            pass

        def state_dict(self):
            return {}

    class Two(type(ALONE)):
        def gather(self, array):
            return [array, others.pop(0)]

    batches, others, q = (
        GroupDro(Drawn(), Groups(of, ("a", "b", "c")), step_size=0.7, processes=Two(0, 2, None)),
        [],
        [1 / 3] * 3,
    )
    for step in range(3):
        rows, ours = batches.draw(step)
        w = weights[step].astype(float)
        expected = []
        for row, own in zip(rows, w, strict=True):
            mass = sum(x for r, x in zip(rows, w, strict=True) if of[r] == of[row])
            expected.append(own * q[of[row]] * w.sum() / mass)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
        losses = rng.uniform(0, 3, 4)
        losses[np.flatnonzero(rows == 2)] = losses[np.flatnonzero(rows == 3)] = 1.5  # a row twice has one loss
        batches.observe(rows[:2], None, torch.from_numpy(losses[:2]))
        others.append(np.array([sum(w[i] * losses[i] for i in (2, 3) if of[rows[i]] == g) for g in range(3)]))
        for g in range(3):
            own = [i for i in range(4) if of[rows[i]] == g]
            mean = sum(w[i] * losses[i] for i in own) / sum(w[i] for i in own) if own else 0.0
            q[g] *= np.exp(0.7 * mean)
        q = [share / sum(q) for share in q]
    np.testing.assert_allclose(batches.state_dict()["group_weights"], q, rtol=1e-6)


# ---------------------------------------------------------------------------------------- what must equal plain training
def test_uniform_bias_and_one_group_are_plain_training():
    data = ragged(N)
    weights = np.random.default_rng(1).uniform(0.2, 2, N)
    plain, product, one_group = classifier(), classifier(), classifier()
    run(plain, data, "erm", Shortcut(), selection=everything(data, weights))
    run(product, data, "poe", Shortcut(p_bias=np.full((N, C), 1 / C)), selection=everything(data, weights))
    alone = Shortcut(groups=Groups(np.zeros(N, dtype=np.int64), ("all",)))
    run(one_group, data, "group_dro", alone, selection=everything(data, weights))
    assert same(weights_of(plain), weights_of(product), 1e-5)
    assert same(weights_of(plain), weights_of(one_group), 1e-5)


def test_a_teacher_that_knows_the_labels_and_no_bias_is_plain_training():
    data = ragged(N)
    known = Shortcut(p_bias=np.full((N, C), 1e-9), teacher=np.eye(C)[data.labels])
    plain, regularised = classifier(), classifier()
    run(plain, data, "erm", Shortcut())
    run(regularised, data, "conf_reg", known)
    assert same(weights_of(plain), weights_of(regularised), 1e-4)


@pytest.mark.parametrize("objective", shortcut())
def test_each_trains_otherwise_than_the_plain_loss_whatever_the_micro_batches(objective, monkeypatch):
    data = ragged(N)
    plain, whole, cut, padded = classifier(), classifier(), classifier(), classifier()
    run(plain, data, "erm", Shortcut())
    run(whole, data, objective, shortcut()[objective])
    run(cut, data, objective, shortcut()[objective], tokens_per_micro_batch=60)
    monkeypatch.setattr("utils.training.step.use_packing", lambda *args, **options: False)
    run(padded, data, objective, shortcut()[objective])
    assert not same(weights_of(plain), weights_of(whole), 1e-4)
    assert same(weights_of(whole), weights_of(cut), 1e-4) and same(weights_of(whole), weights_of(padded), 1e-4)


def test_group_dro_learns_the_same_group_weights_in_micro_batches():
    data, known = ragged(N), shortcut()["group_dro"]
    whole = run(classifier(), data, "group_dro", known)
    cut = run(classifier(), data, "group_dro", known, tokens_per_micro_batch=60)
    np.testing.assert_allclose(whole.state_dict()["group_weights"], cut.state_dict()["group_weights"], rtol=1e-4)
    assert np.ptp(whole.q) > 0.01


# --------------------------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("objective", shortcut())
@pytest.mark.parametrize("kill_after", [4, 6])
def test_a_killed_run_continues_to_the_same_bits(tmp_path, objective, kill_after):
    data, known, scales = ragged(N), shortcut()[objective], []

    def kill(done):
        if done == kill_after:
            raise Killed

    def keep_scale(model):
        return Hooks(on_step=[lambda done: scales.append(model.model.bias_scale.weight.clone())])

    whole, first, second = classifier("bert"), classifier("bert"), classifier("bert")
    mixin = objective == "learned_mixin"
    run(whole, data, objective, known, hooks=keep_scale(whole) if mixin else None)
    with pytest.raises(Killed):
        run(first, data, objective, known, checkpoints=Checkpoints(tmp_path), hooks=Hooks(on_step=[kill]))
    last = scales[-1:]
    again = run(
        second, data, objective, known, checkpoints=Checkpoints(tmp_path), hooks=keep_scale(second) if mixin else None
    )
    assert same(weights_of(whole), weights_of(second))
    if mixin:
        assert torch.equal(last[0], scales[-1]) and not torch.equal(scales[0], scales[-1])
    if objective == "group_dro":
        expected = run(classifier("bert"), data, objective, known).state_dict()["group_weights"]
        assert np.array_equal(again.state_dict()["group_weights"], expected)


# ------------------------------------------------------------------------------------------------- what it is told: files
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("objectives")
    tiny.write_mnli(root / "data", n_train=60, n_dev=12)
    tiny.write_config(root / "model", "bert")
    return root


@pytest.fixture(scope="module")
def examples(world):
    return load_split(get_task("mnli"), "train", data_dir=world / "data")


@pytest.mark.parametrize("bias", ["overlap", "hypothesis"])
def test_a_bias_model_gives_probabilities_of_what_it_sees(examples, bias):
    """The first hypothesis word gives the label away: the words of the hypothesis know it, the overlap does not."""
    known = find_shortcut(settings("poe", bias=bias), examples, everything(examples), None)
    assert known.p_bias.dtype == np.float32 and known.p_bias.shape == (60, 3)
    np.testing.assert_allclose(known.p_bias.sum(1), 1, rtol=1e-5)
    right = (known.p_bias.argmax(1) == examples.labels).mean()
    assert right > 0.6 if bias == "hypothesis" else right < 0.5


def test_a_bias_file_is_read_by_class_name_and_refused_for_other_data(tmp_path, examples):
    p_bias = probabilities(0, 60)
    save_bias(tmp_path / "bias.npz", p_bias, examples)
    assert np.array_equal(read_bias(tmp_path / "bias.npz", examples), p_bias)
    names = ["neutral", "contradiction", "entailment"]
    about = {"class_names": names, "fingerprint": examples.fingerprint}

    def write(array, about):
        np.savez(tmp_path / "other.npz", p_bias=array, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8))
        return tmp_path / "other.npz"

    order = [examples.label_names.index(name) for name in names]
    assert np.array_equal(read_bias(write(p_bias[:, order], about), examples), p_bias)
    for array, changed, message in (
        (p_bias[:59], about, "made for other data"),
        (p_bias, about | {"fingerprint": "0"}, "made for other data"),
        (p_bias, about | {"class_names": ["a", "b", "c"]}, "of the classes a, b, c"),
        (p_bias * 2, about, "row 0 of p_bias holds no probabilities"),
        (p_bias, [], "not the JSON"),
    ):
        with pytest.raises(InputError, match=message):
            read_bias(write(array, changed), examples)


def test_groups_are_label_and_overlap_or_a_column(world, examples):
    selection = Selection(np.arange(0, 60, 2), np.ones(30), 60, examples.fingerprint)
    groups = find_groups(settings("group_dro"), examples, selection)
    for row in range(0, 60, 2):
        held = set(examples.texts[1][row].split()) <= set(examples.texts[0][row].split())
        expected = f"{examples.label_names[examples.labels[row]]}, {'overlap' if held else 'no overlap'}"
        assert groups.names[groups.of[row]] == expected
    column = find_groups(settings("group_dro", group_column="genre", data_dir=str(world / "data")), examples, selection)
    assert column.names == ("genre0",) and set(column.of[::2]) == {0} and set(column.of[1::2]) == {-1}
    with pytest.raises(InputError, match="--group_column genre: it is a column of the training file"):
        find_groups(
            settings("group_dro", group_column="genre"), dataclasses.replace(examples, source="glue/train"), selection
        )
    with pytest.raises(InputError, match="no such column; it has index, promptID"):
        find_groups(settings("group_dro", group_column="topic", data_dir=str(world / "data")), examples, selection)


def test_groups_are_a_column_of_a_file_with_rows_that_were_cut_short(tmp_path, caplog):
    """QQP's official training file has such rows."""
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    rows = [["1", "x", "2", "a dog", "a pet", "1"], ["9", "cut"], ["2", "y", "4", "a cat", "a dog", "0"]]
    (tmp_path / "train.tsv").write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    asked = settings("group_dro", group_column="qid1", data_dir=str(tmp_path), task_name="QQP")
    questions = load_split(get_task("qqp"), "train", data_dir=tmp_path)
    found = find_groups(asked, questions, Selection.everything(2, questions.fingerprint))
    assert found.names == ("x", "y") and found.of.tolist() == [0, 1]


def test_groups_are_a_column_of_a_file_with_unlabelled_rows(tmp_path):
    rows = [("a dog", "a pet", "yes", "x"), ("a cat", "a dog", "-", "y"), ("a cow", "a pet", "no", "z")]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["premise,hypothesis,label,origin", *(",".join(row) for row in rows)]))
    asked = settings("group_dro", group_column="origin", train_file=str(path), task_name=None)
    own = open_data(asked).load("train")
    found = find_groups(asked, own, Selection.everything(2, own.fingerprint))
    assert found.names == ("x", "z") and found.of.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"objective": "erm", "bias_path": "x"}, "--bias_path is for poe, learned_mixin, conf_reg, not for erm"),
        ({"objective": "poe", "group_column": "x"}, "--group_column is for group_dro, dfr, not for poe"),
        ({"objective": "poe", "dfr": True}, "--dfr trains nothing but the last layer"),
        ({"objective": "conf_reg", "dry_run": True}, "give --teacher_path"),
        (
            {"objective": "poe", "bias": "hypothesis", "bias_path": "x"},
            "--bias hypothesis is for a bias model that is made",
        ),
        ({"objective": "erm", "dynamics_per_epoch": 2}, "--dynamics_per_epoch needs --record_dynamics"),
        ({"objective": "erm", "dynamics_eval_mode": True}, "--dynamics_eval_mode needs --record_dynamics"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        settings(**flags).check()


def test_a_score_has_no_classes_to_smooth_over(tmp_path):
    (tmp_path / "train.csv").write_text("sentence,label\na dog,1.5\na cat,2.5\n")
    asked = settings("erm", task_name=None, train_file=str(tmp_path / "train.csv"), output_dir=str(tmp_path / "out"))
    asked = dataclasses.replace(asked, do_regression=True, label_smoothing_factor=0.1, use_cpu=True)
    with pytest.raises(InputError, match=r"--label_smoothing_factor: .* has no classes"):
        finetune.run(asked, script="run_glue.py", arguments={})
    assert not (tmp_path / "out").exists()


def test_data_without_pairs_or_classes_is_refused(world):
    for task, objective, message in (("cola", "poe", "take --bias hypothesis"), ("sts-b", "poe", "has no classes")):
        record = get_task(task)
        from utils.data.examples import Examples

        labels = np.zeros(4, dtype=np.float32 if record.regression else np.int64)
        data = Examples(
            record,
            "train",
            (["a"] * 4,) * len(record.text_columns),
            labels,
            list("abcd"),
            None,
            "f",
            "here",
            np.arange(4),
        )
        with pytest.raises(InputError, match=message):
            find_shortcut(settings(objective), data, everything(data), None)


# -------------------------------------------------------------------------------------------------------------- scripts
def words(world, out, *more):
    return [
        "--task_name", "MNLI", "--data_dir", world / "data", "--do_train", "--do_eval", "--max_seq_length", 32,
        "--per_device_train_batch_size", 8, "--num_train_epochs", 2, "--learning_rate", "1e-3", "--use_cpu",
        "--cache_dir", world / "cache", "--output_dir", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def base(world):
    """A run of conf_reg with a teacher of the user's own."""
    np.save(world / "teacher.npy", np.zeros((60, 3), dtype=np.float32))
    more = ["--config_name", world / "model", "--tokenizer_name", world / "model"]
    more += ["--objective", "conf_reg", "--teacher_path", world / "teacher.npy"]
    forked.run("run_glue.py", *words(world, world / "base", *more), printed=world / "base.printed")
    return world / "base"


def test_a_run_says_what_its_objective_was_told(world, base, examples):
    found = json.loads((base / "results.json").read_text())["objective"]
    assert found["name"] == "conf_reg" and found["bias"] == "overlap, cross-fitted" and found["seconds"] > 0
    assert found["teacher"] == str(world / "teacher.npy") and found["teacher_epochs"] == 0
    assert read_bias(base / "bias.npz", examples).shape == (60, 3)


def test_the_teacher_is_trained_by_the_same_recipe_on_the_same_rows(examples, tmp_path, monkeypatch):
    commands = []

    def pretend(maker, command, out, *, done, **about):
        commands.append(list(map(str, command)))
        done.parent.mkdir(parents=True, exist_ok=True)
        if command[0] == "get_embeddings.py":
            np.save(done.with_suffix(".npy"), np.log(probabilities(5, 60)))

    monkeypatch.setattr(InputMaker, "_run", pretend)
    selection = Selection(np.arange(24), np.ones(24), 60, examples.fingerprint)
    asked = settings("conf_reg", learning_rate=7e-4, num_train_epochs=4.0)
    known = find_shortcut(asked, examples, selection, tmp_path)
    np.testing.assert_allclose(known.teacher, probabilities(5, 60), rtol=1e-4)
    train, infer = (" ".join(command) for command in commands)
    assert "--learning_rate 0.0007" in train and "--num_train_epochs 4.0" in train and "--objective" not in train
    rows = commands[0][commands[0].index("--selection") + 1]
    assert Selection.load(rows).digest == selection.digest and f"--model_name_or_path {tmp_path}" in infer


def test_dfr_replaces_the_last_layer_alone(world, base, tmp_path):
    from safetensors.numpy import load_file

    words_of_dfr = words(world, tmp_path / "dfr", "--model_name_or_path", base, "--dfr")
    refused = forked.run("run_glue.py", *words_of_dfr, printed=tmp_path / "printed", check=2)
    assert "the group 'entailment, overlap' has one example, and needs two" in refused.stderr
    words_of_dfr += ["--group_column", "genre"]
    done = forked.run("run_glue.py", *words_of_dfr, printed=tmp_path / "printed")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "dfr"))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    found = json.loads((tmp_path / "dfr" / "results.json").read_text())
    assert (
        found["objective"]["name"] == "dfr" and 0 < found["train"]["probed"] <= 60 and found["train"]["examples"] == 0
    )
    assert found["eval"].keys() == {"dev_matched", "dev_mismatched"} and "each of" in done.stderr


@pytest.mark.parametrize("columns", [None, torch.tensor([2, 0, 1])])
def test_dfr_is_the_logistic_regression_of_balanced_draws(monkeypatch, columns):
    """One draw, all of the data, groups of equal size: the layer's answers are those of scikit-learn on the raw features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    monkeypatch.setattr(last_layer, "FITS", 1)
    monkeypatch.setattr(last_layer, "PENALTIES", (0.3,))
    data, model = ragged(60), classifier("bert")
    model.columns = columns
    data.labels[:] = np.arange(60) % 3
    groups = Groups(data.labels.copy(), ("a", "b", "c"))
    session = Session(model, ALONE, FLOAT32, TrainingSettings())
    options = {"pooling": "pooler", "description": "x"}
    features = next(iter(session.infer(data, np.arange(60), **options))).features
    scaled = StandardScaler().fit_transform(features)
    expected = LogisticRegression(C=0.3, max_iter=500).fit(scaled, data.labels).predict_proba(scaled)
    last_layer.retrain_last_layer(session, data, everything(data), groups, 0)
    logits = session.predict(data)
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), expected, atol=2e-3)


@pytest.mark.parametrize("labels", [[1, 1], [0, 2, 0, 2], [0, 1, 2, 0]])
def test_a_layer_never_says_a_class_that_its_draw_lacks(labels):
    x = np.random.default_rng(0).normal(size=(len(labels), 4)) + 5 * np.array(labels)[:, None]
    slopes, offsets = last_layer._fit(x, np.array(labels), 1.0, 3)
    assert (x @ slopes.T + offsets).argmax(1).tolist() == labels


def test_erm_is_the_default(world):
    with objective_of(settings("erm"), Shortcut(), None, None, None) as objective:
        assert objective is erm
