"""select_examples.py end to end on a small generated corpus, and what it refuses."""

import itertools
import json

import numpy as np
import pytest

import select_examples
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError, run_script
from utils.selection.card import format_card, subset_card
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.embedding_writer import EmbeddingWriter
from utils.selection.embeddings import load_embeddings
from utils.selection.selection import Selection, random_ranking
from utils.selection.strategies import STRATEGIES

NAMES = ("contradiction", "entailment", "neutral")
N = 60


def write_corpus(folder, n=N, shift=0):
    folder.mkdir(parents=True)
    words = "the cat dog sees hears big small old".split()
    rows = ["index\tpairID\tgenre\tsentence1\tsentence2\tgold_label"]
    for i in range(n):
        premise = " ".join(words[(i * 7 + j * (i % 5 + 1) + shift) % 8] for j in range(5))
        hypothesis = " ".join(premise.split()[:2]) if i % 4 == 0 else f"a {words[i % 8]} runs"
        rows.append(f"{i}\tp{i}\t{('fiction', 'travel')[i % 2]}\t{premise}\t{hypothesis}\t{NAMES[i % 3]}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_embeddings(path, examples, *, pooling="cls", kind="cls_embeddings", d=5, seed=0, fingerprint=None, **more):
    about = {
        **more,
        "model": "m", "task": "mnli", "split": "train", "pooling": pooling, "layer": -1,
        "fingerprint": fingerprint or examples.fingerprint,
    }  # fmt: skip
    values = np.random.default_rng(seed).normal(size=(len(examples), d)).astype(np.float32)
    writer = EmbeddingWriter(path / f"{kind}_mnli_train.npy", about, len(examples), d, len(examples))
    writer.write(np.arange(len(examples)), values)
    writer.mark_done(0)
    return writer.finish()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus with embeddings of two kinds, clusters, dynamics and logits of it."""
    root = tmp_path_factory.mktemp("world")
    write_corpus(root / "data")
    examples = load_split(get_task("mnli"), "train", data_dir=root / "data")
    cls = load_embeddings(write_embeddings(root / "cls", examples))
    write_embeddings(root / "pooler", examples, pooling="pooler", seed=1)
    write_embeddings(root / "logits", examples, kind="logits", d=3, seed=2)
    write_embeddings(root / "pooler", examples, kind="logits", d=3, seed=2, pooling="logits")
    np.save(root / "pooler" / "gold_mnli_train.npy", examples.labels)
    centers = np.stack([cls.array[i::12].mean(0) for i in range(12)])
    squared = ((cls.array[:, None] - centers) ** 2).sum(2)
    about = {"embeddings": {"digest": cls.digest}}
    clusters = Clusters(squared.argmin(1), centers, np.sqrt(squared.min(1)), examples.fingerprint, N, about)
    clusters.save(root / "clusters.npz")
    logits = np.random.default_rng(3).normal(size=(4, N, 3)).astype(np.float16)
    (root / "ranking.txt").write_text("".join(f"p{i}\n" for i in range(N - 1, 0, -4)))
    for name, s in (("dynamics", 4), ("one", 1), ("second", 2)):
        Dynamics(logits[:s], examples.labels, NAMES, np.arange(s), "eval", examples.fingerprint).save(
            root / f"{name}.npz"
        )
    return root


def flags_for(name, world) -> list:
    needs = STRATEGIES[name].needs
    flags = ["--embedding_path", world / ("pooler" if "pooler" in needs else "cls")]
    if "target gradients" in needs:
        flags = ["--gradient_path", world / "pooler", "--target_path", world / "pooler"]
    elif "target" in needs:
        flags += ["--target_path", world / "cls"]
    if "pooler" not in needs:
        flags += ["--cluster_path", world / "clusters.npz"]
    second = [world / "second.npz"] if "two splits" in needs else []
    flags += ["--ranking", world / "ranking.txt"]
    flags += [
        "--dynamics_path",
        world / "dynamics.npz",
        *second,
        "--logits_path",
        world / "logits" / "logits_mnli_train.npy",
    ]
    return flags


def run(*argv) -> None:
    select_examples.main([str(part) for part in argv])


def choose(world, output, *flags):
    run("--data_dir", world / "data", "--output_dir", output, *flags)
    return Selection.load(output / "selection.npz"), json.loads((output / "selection.json").read_text())


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_end_to_end(name, world, tmp_path, capsys):
    selection, card = choose(world, tmp_path, "--strategy", name, "--data_pct", 0.25, *flags_for(name, world))
    assert len(selection) == 15 == card["m"]
    selection.check(load_split(get_task("mnli"), "train", data_dir=world / "data"))
    assert card["provenance"]["method"] == name and card["provenance"]["selection_seed"] == 0
    printed = capsys.readouterr().out
    assert f"{name}: 15 of 60 examples" in printed and "entailment" in printed and "lexical_overlap" in printed


def test_the_card_counts_what_is_there(world, tmp_path):
    selection, card = choose(world, tmp_path, "--strategy", "random", "--num_examples", 20, "--selection_seed", 4)
    examples = load_split(get_task("mnli"), "train", data_dir=world / "data")
    rows = random_ranking(N, 4)[:20]
    assert selection.indices.tolist() == rows.tolist() and card["jaccard_with_random"] == 1.0
    for i, name in enumerate(NAMES):
        assert card["labels"][name]["subset"] == pytest.approx((examples.labels[rows] == i).mean())
        assert card["labels"][name]["full"] == pytest.approx(1 / 3)
    for key in ("labels", "genres", "words", "word_overlap"):
        for part in ("subset", "full"):
            assert sum(shares[part] for shares in card[key].values()) == pytest.approx(1)
    counter = [
        i for i in range(N)
        if set(examples.texts[1][i].split()) <= set(examples.texts[0][i].split()) and examples.labels[i] != 1
    ]  # fmt: skip
    assert card["contradicts"]["lexical_overlap"] == {
        "subset": len(set(counter) & set(rows.tolist())),
        "full": len(counter),
    }
    assert len(counter) >= 5


def test_the_card_of_a_single_text_task_without_labels(tmp_path):
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tone two\n1\tthree\n", encoding="utf-8")
    examples = load_split(get_task("sst-2"), "test", data_dir=tmp_path)
    card = subset_card(Selection.everything(2, examples.fingerprint), examples)
    assert "labels" not in card and "word_overlap" not in card and card["words"]["0 - 10"]["full"] == 1
    assert "2 of 2 examples" in format_card(card)


def test_one_seed_one_subset_and_nested(world, tmp_path):
    def rows(name, *flags):
        return choose(world, tmp_path / name, "--strategy", "random", *flags)[0].indices.tolist()

    small, again, large = rows("a", "--data_pct", 0.1), rows("b", "--data_pct", 0.1), rows("c", "--data_pct", 0.2)
    assert small == again == large[: len(small)]
    assert set(rows("d", "--data_pct", 0.1, "--selection_seed", 1)) != set(small)


def test_start_from_and_class_balance(world, tmp_path):
    start, _ = choose(world, tmp_path / "start", "--strategy", "random", "--num_examples", 6)
    selection, _ = choose(
        world, tmp_path / "more", "--strategy", "easy", "--num_examples", 24, "--class_balanced",
        "--dynamics_path", world / "dynamics.npz", "--start_from", tmp_path / "start" / "selection.npz",
    )  # fmt: skip
    assert selection.indices[:6].tolist() == start.indices.tolist() and len(set(selection.indices.tolist())) == 24


def test_list_names_every_strategy_with_its_source(capsys):
    run("--list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STRATEGIES)
    assert all("[" in line for line in lines)


# ------------------------------------------------------------------------------------------------------------- refusals
def refusal(monkeypatch, capsys, *argv) -> str:
    """The one line on stderr of a run that must end with status 2."""
    monkeypatch.setattr("sys.argv", ["select_examples.py", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        run_script(select_examples.main)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and "error:" in lines[-1] and len([line for line in lines if "error" in line]) == 1
    return lines[-1]


def test_what_cannot_be_used_is_one_clear_line(world, tmp_path, monkeypatch, capsys):
    write_corpus(tmp_path / "other", shift=1)
    other = load_split(get_task("mnli"), "train", data_dir=tmp_path / "other")
    write_embeddings(tmp_path / "foreign", other)
    examples = load_split(get_task("mnli"), "train", data_dir=world / "data")
    write_embeddings(tmp_path / "second", examples, seed=5)
    nan = write_embeddings(tmp_path / "nan", examples)
    array = np.load(nan)
    array[17, 2] = np.nan
    np.save(nan, array)
    Selection.everything(N, other.fingerprint).save(tmp_path / "selection.npz")

    base = ["--data_dir", world / "data", "--output_dir", tmp_path / "out"]
    budget = ["--data_pct", 0.1]
    clusters = ["--cluster_path", world / "clusters.npz"]
    for flags, words in (
        (["--strategy", "kcenter", *budget, "--embedding_path", tmp_path / "foreign"], "made for other data"),
        (["--strategy", "kcenter", *budget, "--embedding_path", tmp_path / "nan"], "row 17 holds NaN"),
        (["--strategy", "diverse", *budget, "--embedding_path", tmp_path / "second", *clusters], "other embeddings"),
        (["--strategy", "random", *budget, "--start_from", tmp_path / "selection.npz"], "made for other data"),
        (["--strategy", "forgetting", *budget, "--dynamics_path", world / "one.npz"], "two snapshots"),
        (["--strategy", "ambiguous", *budget], "--record_dynamics"),
        (["--strategy", "grand", *budget, "--embedding_path", world / "cls"], "--logits"),
        (["--strategy", "random", "--data_pct", 0], "fraction above 0"),
        (["--strategy", "random", "--data_pct", 10], "0.1 means 10 %"),
        (["--strategy", "random", "--num_examples", N + 1], f"at most {N}"),
        (["--strategy", "random", *budget, "--num_examples", 3], "exactly one"),
        (["--strategy", "random"], "give --data_pct"),
        (["--strategy", "best", *budget], "there are random"),
        (["--strategy", "random", *budget, "--eps", 0.1], "does not read --eps"),
    ):
        assert words in refusal(monkeypatch, capsys, *base, *flags)
        assert not (tmp_path / "out").exists()
    other_data = ["--data_dir", tmp_path / "other", "--output_dir", tmp_path / "out", *budget]
    for flags in (
        ["--strategy", "diverse", *clusters],
        ["--strategy", "easy", "--dynamics_path", world / "dynamics.npz"],
    ):
        assert "other data" in refusal(monkeypatch, capsys, *other_data, *flags)


def test_logits_without_their_json_are_checked_by_shape(world, tmp_path):
    np.save(tmp_path / "logits.npy", np.zeros((N - 1, 3), dtype=np.float32))
    with pytest.raises(InputError, match="shape"):
        run(
            "--strategy", "entropy", "--data_pct", 0.1, "--data_dir", world / "data",
            "--output_dir", tmp_path / "out", "--logits_path", tmp_path / "logits.npy",
        )  # fmt: skip


def test_inputs_of_different_checkpoints_are_not_read_together(world, tmp_path):
    examples = load_split(get_task("mnli"), "train", data_dir=world / "data")
    write_embeddings(tmp_path / "pooler", examples, pooling="pooler", weights="a")
    paths = ["--embedding_path", tmp_path / "pooler"]
    for strategy in ("grand", "craig"):
        for weights in "ab":
            folder = tmp_path / strategy / weights
            logits = write_embeddings(folder, examples, kind="logits", d=3, pooling="logits", weights=weights)
            flags = ["--strategy", strategy, "--data_pct", 0.1, *paths, "--logits_path", logits]
            if weights == "a":
                choose(world, folder / "out", *flags)
            else:
                with pytest.raises(InputError, match="different checkpoints"):
                    choose(world, folder / "out", *flags)
    paths += ["--cluster_path", world / "clusters.npz", "--data_pct", 0.1]
    choose(world, tmp_path / "diverse", "--strategy", "diverse", *paths)  # it reads the clusters alone
    with pytest.raises(InputError, match="clusters are of other embeddings"):
        choose(world, tmp_path / "semdedup", "--strategy", "semdedup", *paths)


def test_subsets_of_different_strategies_differ(world, tmp_path):
    """A registry that maps two names to one function would pass everything above."""
    chosen = {}
    for name in STRATEGIES:
        rows = choose(world, tmp_path / name, "--strategy", name, "--data_pct", 0.25, *flags_for(name, world))[
            0
        ].indices
        chosen[name] = frozenset(rows.tolist())
    alike = [pair for pair in itertools.combinations(chosen, 2) if chosen[pair[0]] == chosen[pair[1]]]
    assert alike == []


def test_a_choice_killed_before_its_card_is_finished_by_the_same_command_alone(world, tmp_path):
    flags = ("--strategy", "random", "--num_examples", 20)
    first, card = choose(world, tmp_path, *flags)
    (tmp_path / "selection.json").unlink()
    again, same = choose(world, tmp_path, *flags)
    assert again.digest == first.digest and same["m"] == card["m"]
    (tmp_path / "selection.json").unlink()
    with pytest.raises(InputError, match=r"holds finished results \(selection.npz exists\)"):
        choose(world, tmp_path, "--strategy", "random", "--num_examples", 21)
