"""Readers of every format: a file that was saved loads to what was saved, and any bytes at all either load to that or are
refused in one line. The examples are drawn by hypothesis, the same ones each time.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hans.data import load_hans, load_predictions
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.files import read_json, read_npz, write_json
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.embedding_writer import EmbeddingWriter
from utils.selection.embeddings import load_embeddings
from utils.selection.selection import Selection

settings.register_profile("files", max_examples=150, deadline=None, derandomize=True, database=None)
settings.load_profile("files")

# Whatever a TSV field may hold: no tab, no line end; U+2028, control characters and quotes are text.
fields = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=20)
finite = st.floats(-(2.0**15), 2.0**15, width=16)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def damages(draw):
    """A function from bytes to other bytes: one byte changed, a piece cut out, the end cut off, or bytes put in."""
    kind, place = (
        draw(st.sampled_from(["change", "cut out", "cut off", "put in"])),
        draw(st.floats(0, 1, exclude_max=True)),
    )
    amount, more = draw(st.integers(1, 255)), draw(st.binary(min_size=1, max_size=40))

    def damage(content: bytes) -> bytes:
        at = int(place * len(content))
        if kind == "change":
            return content[:at] + bytes([content[at] ^ amount]) + content[at + 1 :]
        if kind == "cut out":
            return content[:at] + content[at + amount :]
        return content[:at] + (more + content[at:] if kind == "put in" else b"")

    return damage


def refused_in_one_line(error: InputError, path: Path) -> None:
    message = str(error)
    assert "\n" not in message.strip() and len(message) < 1500 and str(path) in message


def same(a, b) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


# ------------------------------------------------------------------------------------------------------------------ TSV
@given(st.lists(st.tuples(fields, fields, st.sampled_from(["entailment", "not_entailment"])), min_size=1, max_size=6))
def test_any_rows_of_a_tsv_are_read_as_they_stand(folder, rows):
    lines = ["index\tsentence1\tsentence2\tlabel", *(f"{i}\t{a}\t{b}\t{label}" for i, (a, b, label) in enumerate(rows))]
    (folder / "train.tsv").write_bytes(("\n".join(lines) + "\n").encode())
    examples = load_split(get_task("rte"), "train", data_dir=folder)
    names = [examples.label_names[i] for i in examples.labels]
    assert list(zip(*examples.texts, names, strict=True)) == rows


TSV = b"index\tsentence1\tsentence2\tlabel\n0\ta b\tc d\tentailment\n1\te\tf\tnot_entailment\n"


@given(st.one_of(st.binary(max_size=200), damages().map(lambda damage: damage(TSV))))
def test_any_bytes_are_a_tsv_or_refused(folder, content):
    (folder / "train.tsv").write_bytes(content)
    try:
        examples = load_split(get_task("rte"), "train", data_dir=folder)
    except InputError as error:
        refused_in_one_line(error, folder)
    else:  # a changed letter of a text cannot be noticed; a changed shape must be
        assert len(examples.texts[0]) == len(examples.texts[1]) == len(examples.labels) == len(examples.guids) >= 1


# ----------------------------------------------------------------------------------------------------------------- JSON
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4))
def test_json_is_read_as_it_was_written(folder, value):
    try:
        write_json(folder / "value.json", value)
    except UnicodeEncodeError:  # half of a surrogate pair is no text
        return
    assert read_json(folder / "value.json") == value


@given(st.one_of(st.binary(max_size=60), st.integers(1, 200_000).map(lambda n: b"[" * n), st.just(b"9" * 5000)))
def test_any_bytes_are_json_or_refused(folder, content):
    path = folder / "bytes.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_json(path), dict)
    except InputError as error:
        refused_in_one_line(error, path)


# ------------------------------------------------------------------------------------------------------- our own arrays
def selections():
    return st.integers(1, 8).flatmap(
        lambda n: st.builds(
            Selection,
            st.lists(st.integers(0, n - 1), min_size=3, max_size=3).map(np.array),
            st.lists(st.floats(0.125, 8, width=32), min_size=3, max_size=3).map(np.array),
            st.just(n),
            st.text("abcdef0123456789", min_size=32, max_size=32),
            st.booleans(),
            st.none() | st.lists(finite, min_size=n, max_size=n).map(np.array),
            st.dictionaries(st.text("abc"), st.integers() | fields, max_size=3),
        )
    )


def dynamics():
    logits = st.lists(finite | st.just(np.nan), min_size=24, max_size=24)
    return st.builds(
        Dynamics,
        logits.map(lambda values: np.array(values, dtype=np.float16).reshape(2, 4, 3)),
        st.lists(st.integers(0, 2), min_size=4, max_size=4).map(np.array),
        st.just(("a", "b", "c")),
        st.just(np.array([1.0, 2.0])),
        st.sampled_from(["train", "eval"]),
        st.just("f" * 32),
    )


def clusters():
    return st.builds(
        Clusters,
        st.lists(st.integers(0, 1), min_size=5, max_size=5).map(np.array),
        st.lists(finite, min_size=6, max_size=6).map(lambda values: np.array(values).reshape(2, 3)),
        st.lists(st.floats(0, 8, width=16), min_size=5, max_size=5).map(np.array),
        st.just("f" * 32),
        st.just(5),
        st.dictionaries(st.text("abc"), st.integers(), max_size=2),
    )


def same_parts(a, b) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)]
    return all(same(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


@pytest.mark.parametrize("made", [selections, dynamics, clusters])
def test_our_files_load_to_what_was_saved_or_are_refused(folder, made):
    @given(made(), damages())
    def check(whole, damage):
        path = folder / "ours.npz"
        whole.save(path)
        assert same_parts(type(whole).load(path), whole)
        path.write_bytes(damage(path.read_bytes()))
        try:
            assert same_parts(type(whole).load(path), whole)
        except InputError as error:
            refused_in_one_line(error, path)

    check()


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda more: b"PK\x03\x04" + more + b"PK\x05\x06" + more))
def test_any_bytes_are_an_npz_or_refused(folder, content):
    path = folder / "bytes.npz"
    path.write_bytes(content)
    try:
        read_npz(path)
    except InputError as error:
        refused_in_one_line(error, path)


@given(st.lists(finite, min_size=12, max_size=12), damages(), st.sampled_from([".npy", ".json"]))
def test_embeddings_load_to_what_was_saved_or_are_refused(folder, values, damage, ending):
    about = {"model": "m", "task": "mnli", "split": "train", "fingerprint": "f", "pooling": "cls", "layer": None}
    values = np.array(values, dtype=np.float32).reshape(4, 3)
    writer = EmbeddingWriter(folder / "cls_embeddings_mnli_train.npy", about, 4, 3, 2)
    for block in writer.remaining_blocks():
        rows = np.arange(4)[writer.positions(block)]
        writer.write(rows, values[rows])
        writer.mark_done(block)
    path = writer.finish()
    np.testing.assert_array_equal(load_embeddings(path).array, values)
    damaged = path.with_suffix(ending)
    damaged.write_bytes(damage(damaged.read_bytes()))
    try:
        loaded = load_embeddings(path)
    except InputError as error:
        refused_in_one_line(error, path.parent)
    else:
        np.testing.assert_array_equal(loaded.array, values)


# ----------------------------------------------------------------------------------------------------------------- HANS
HANS = (
    b"gold_label\tsentence1\tsentence2\tpairID\theuristic\tsubcase\ttemplate\n"
    b"entailment\ta b\ta\tex0\tsubsequence\tse_x\tt1\nnon-entailment\ta b\tb\tex1\tsubsequence\tsn_x\tt1\n"
)
PREDICTIONS = b"pairID,gold_label\nex0,entailment\nex1,neutral\n"


@given(damages())
def test_any_bytes_are_a_hans_set_or_refused(folder, damage):
    path = folder / "heuristics_evaluation_set.txt"
    path.write_bytes(damage(HANS))
    try:
        assert 1 <= len(load_hans(path)) <= 3
    except InputError as error:
        refused_in_one_line(error, path)


@given(damages())
def test_any_bytes_are_hans_predictions_or_refused(folder, damage):
    (folder / "set.txt").write_bytes(HANS)
    path = folder / "hans_predictions.txt"
    path.write_bytes(damage(PREDICTIONS))
    try:
        assert len(load_predictions(path, load_hans(folder / "set.txt"))) == 2
    except InputError as error:
        refused_in_one_line(error, path)


def test_the_json_of_flags_is_checked_like_any_json(folder):
    """Guards the tests above: a reader that refused everything would pass them."""
    (folder / "good.json").write_text(json.dumps({"a": [1, None]}))
    assert read_json(folder / "good.json") == {"a": [1, None]}
