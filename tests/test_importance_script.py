"""subsampling_mnli.py and importance_sampling_mnli.py: choose and train in one command; what is missing is made and kept."""

import json

import pytest

import importance_sampling_mnli
from tests import forked, tiny
from utils.selection import Selection

N = 90


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=N, n_dev=24)
    tiny.write_config(root / "model", "bert")
    return root


def run(world, out, script, *flags, check=0):
    done = forked.run(
        script, "--config_name", world / "model", "--tokenizer_name", world / "model", "--task_name", "MNLI", "--data_dir",
        world / "data", "--do_train", "--do_eval", "--max_seq_length", "32", "--per_gpu_train_batch_size", "8",
        "--learning_rate", "1e-3", "--num_train_epochs", "2", "--cache_dir", world / "cache", "--output_dir", out, *flags,
        printed=world / "printed", check=check,
    )  # fmt: skip
    return done if check else (
        Selection.load(out / "selection.npz") if (out / "selection.npz").exists() else None
    ), done


def rows(world, tmp_path, name, *flags):
    selection, _ = run(world, tmp_path / name, "subsampling_mnli.py", *flags)
    return selection.indices.tolist()


def test_a_subset_depends_on_data_and_selection_seed_alone(world, tmp_path):
    one = rows(world, tmp_path, "a", "--data_pct", "0.2", "--seed", "1", "--selection_seed", "7")
    other = rows(world, tmp_path, "b", "--data_pct", "0.2", "--seed", "2", "--selection_seed", "7")
    assert one == other and len(one) == round(0.2 * N)
    assert rows(world, tmp_path, "c", "--data_pct", "0.2", "--selection_seed", "8") != one
    assert set(rows(world, tmp_path, "d", "--data_pct", "0.1", "--selection_seed", "7")) < set(one)


def test_stratified_keeps_the_share_of_labels(world, tmp_path):
    from utils.glue import load_split
    from utils.tasks import get_task

    chosen = rows(world, tmp_path, "a", "--data_pct", "0.2", "--strategy", "stratified")
    labels = load_split(get_task("mnli"), "train", data_dir=world / "data").labels
    assert [int((labels[chosen] == k).sum()) for k in range(3)] == [6, 6, 6]


def test_what_a_strategy_needs_is_made_once_and_kept(world, tmp_path):
    out = tmp_path / "out"
    more = ("--strategy", "cluster_ccs", "--data_pct", "0.3", "--num_clusters", "4", "--proxy_epochs", "1")
    selection, done = run(world, out, "importance_sampling_mnli.py", *more)
    results = json.loads((out / "results.json").read_text())
    assert len(selection) == results["selection"]["m"] == 27 and selection.provenance["method"] == "cluster_ccs"
    assert "cluster_ccs: 27 of 90 examples" in done.stdout
    made = {path: path.stat().st_mtime_ns for path in (out / "selector").rglob("*") if path.is_file()}
    names = {str(path.relative_to(out / "selector")) for path in made}
    assert {"proxy_run/dynamics.npz", "features/cls_embeddings_mnli_train.npy", "clusters/clusters.npz"} <= names
    run(world, out, "importance_sampling_mnli.py", *more, "--overwrite_output_dir")
    assert made == {path: path.stat().st_mtime_ns for path in made}  # reused
    # Given by flag, nothing is made.
    paths = (
        "--dynamics_path",
        out / "selector/proxy_run/dynamics.npz",
        "--cluster_path",
        out / "selector/clusters/clusters.npz",
    )
    again, _ = run(world, tmp_path / "given", "importance_sampling_mnli.py", *more, *paths)
    assert not (tmp_path / "given" / "selector").exists()
    assert again.indices.tolist() == selection.indices.tolist()


def test_importance_scores_by_what_is_asked(world, tmp_path):
    for name, flags, made in (
        ("a", (), "proxy_run/dynamics.npz"),
        ("b", ("--score", "embedding"), "features/cls_embeddings_mnli_train.npy"),
    ):
        out = tmp_path / name
        more = ("--strategy", "importance", "--data_pct", "0.2", "--proxy_epochs", "1", *flags)
        selection, _ = run(world, out, "importance_sampling_mnli.py", *more)
        assert len(selection) == 18 and (out / "selector" / made).exists()
        assert len(set(selection.weights.tolist())) > 3


def test_grand_gets_the_classifiers_own_input_and_logits(world, tmp_path):
    out = tmp_path / "out"
    selection, _ = run(
        world, out, "importance_sampling_mnli.py", "--strategy", "grand", "--data_pct", "0.1", "--proxy_epochs", "1"
    )
    names = {path.name for path in (out / "selector" / "features").iterdir()}
    assert {"pooler_embeddings_mnli_train.npy", "logits_mnli_train.npy"} <= names and len(selection) == 9


@pytest.mark.parametrize("scheme", ["grad_norm", "infobatch", "rs2"])
def test_online_schemes_record_what_they_saved(world, tmp_path, scheme):
    flags = ("--data_pct", "0.3") if scheme == "rs2" else ()
    _, done = run(
        world, tmp_path / "out", "importance_sampling_mnli.py", "--online", scheme, *flags, "--num_train_epochs", "4"
    )
    train = json.loads((tmp_path / "out" / "results.json").read_text())["train"]
    assert f"{scheme}: {train['examples']} examples through the backward pass" in done.stdout
    assert 0 < train["examples"] <= 4 * N and train["probed"] >= 0
    if scheme == "infobatch":
        assert train["examples"] < 4 * N
    if scheme == "rs2":
        assert train["examples"] == 4 * round(0.3 * N)


def test_rho_makes_its_irreducible_losses_from_two_halves(world, tmp_path):
    out = tmp_path / "out"
    run(world, out, "importance_sampling_mnli.py", "--online", "rho", "--proxy_epochs", "1")
    assert (out / "selector" / "irreducible_loss.npz").exists()
    a, b = (set(Selection.load(out / "selector" / f"half_{k}.npz").indices.tolist()) for k in (0, 1))
    assert not a & b and len(a | b) == N
    train = json.loads((out / "results.json").read_text())["train"]
    assert train["probed"] > train["examples"]


@pytest.mark.parametrize(
    "flags, said",
    [
        ([], "exactly one of --strategy and --online"),
        (["--strategy", "random", "--online", "rs2"], "exactly one of --strategy and --online"),
        (["--online", "rs2"], "--online rs2 needs --data_pct"),
        (["--online", "infobatch", "--data_pct", "0.1"], "draws from all of the data"),
        (["--strategy", "random", "--data_pct", "10"], "0.1 means 10 %"),
        (["--strategy", "random", "--data_pct", "0"], "selects nothing"),
    ],
)
def test_flags_that_do_not_go_together(world, tmp_path, flags, said, capsys):
    words = [
        "--config_name",
        str(world / "model"),
        "--data_dir",
        str(world / "data"),
        "--do_train",
        "--output_dir",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit) as status:
        importance_sampling_mnli.main([*words, *flags])
    assert status.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_unknown_strategy_is_one_line(world, tmp_path):
    done, _ = run(
        world, tmp_path / "o", "importance_sampling_mnli.py", "--strategy", "magic", "--data_pct", "0.1", check=2
    )
    assert "--strategy magic is unknown" in done.stderr and "Traceback" not in done.stderr
