"""The embeddings file: what is written is what is read, an interrupted run goes on, anything else is one clear line."""

import hashlib
import json

import numpy as np
import pytest

from utils.data.examples import Examples
from utils.data.tasks import get_task
from utils.errors import InputError, RunFailed
from utils.selection.embedding_writer import EmbeddingWriter
from utils.selection.embeddings import embedding_paths, load_embeddings

ABOUT = {"model": "tiny", "task": "mnli", "split": "train", "fingerprint": "f" * 32, "pooling": "cls", "layer": -1}
N, D, BLOCK = 23, 5, 4


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def write(folder, values, *, about=ABOUT, blocks=None, rng=None):
    """Write `blocks` (all remaining ones without), the rows of each in an order drawn from `rng`; returns the writer."""
    writer = EmbeddingWriter(embedding_paths(folder, "mnli", "train")[0], about, *values.shape, BLOCK)
    for block in writer.remaining_blocks() if blocks is None else blocks:
        rows = np.arange(len(values))[writer.positions(block)]
        if rng:
            rng.shuffle(rows)
        writer.write(rows, values[rows])
        writer.mark_done(block)
    return writer


def examples(n=N, fingerprint="f" * 32):
    text = [""] * n
    return Examples(
        get_task("mnli"), "train", (text, text), None, text, None, fingerprint, "train.tsv", np.arange(len(text))
    )


def test_row_i_is_row_i_in_any_order_of_computing(tmp_path, values):
    path = write(tmp_path, values, rng=np.random.default_rng(1)).finish()
    npy, about = embedding_paths(tmp_path, "mnli", "train")
    assert path == npy
    loaded = load_embeddings(npy)
    assert isinstance(loaded.array, np.memmap)
    np.testing.assert_array_equal(loaded.array, values)
    sha256 = hashlib.sha256(npy.read_bytes()).hexdigest()
    assert json.loads(about.read_text()) == {**ABOUT, "n": N, "d": D, "sha256": sha256, "complete": True}
    assert sorted(tmp_path.iterdir()) == [about, npy]  # nothing partial is left


def test_interrupted_run_continues_with_the_missing_blocks(tmp_path, values):
    npy = write(tmp_path, values, blocks=[0, 3]).path
    with pytest.raises(InputError, match="unfinished"):
        load_embeddings(npy)
    again = EmbeddingWriter(npy, ABOUT, N, D, BLOCK)
    assert again.remaining_blocks() == [1, 2, 4, 5]
    # What was done is not computed again, so it must still be there at the end.
    write(tmp_path, np.where(np.isin(np.arange(N) // BLOCK, [0, 3])[:, None], 0, values)).finish()
    np.testing.assert_array_equal(load_embeddings(npy).array, values)


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_damaged_block_is_computed_again_with_a_word(tmp_path, values, caplog):
    npy = write(tmp_path, values, blocks=[0, 1, 2, 3]).path
    row = N - 12  # in block 2
    flip_a_bit(npy.with_name(npy.name + ".partial"), -4 * D * (N - row))
    flip_a_bit(npy.with_name(npy.name + ".partial.done"), 32 * 3)
    assert write(tmp_path, values, blocks=[]).remaining_blocks() == [2, 3, 4, 5]
    assert caplog.text.count("does not match its checksum") == 2
    np.testing.assert_array_equal(load_embeddings(write(tmp_path, values).finish()).array, values)


@pytest.mark.parametrize("ending", ["", ".done", ".json"])
@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-9])])
def test_damaged_partial_files_are_started_afresh(tmp_path, values, ending, damage):
    npy = write(tmp_path, values, blocks=[0, 1]).path
    damage(npy.with_name(f"{npy.name}.partial{ending}"))
    assert write(tmp_path, values, blocks=[]).remaining_blocks() == list(range(6))
    np.testing.assert_array_equal(load_embeddings(write(tmp_path, values).finish()).array, values)


def test_embeddings_of_earlier_versions_have_no_checksum(tmp_path, values):
    path = write(tmp_path, values).finish()
    damage_json(lambda about: {key: about[key] for key in about if key != "sha256"})(path, path.with_suffix(".json"))
    np.testing.assert_array_equal(load_embeddings(path).array, values)


@pytest.mark.parametrize("changed", [{"model": "other"}, {"fingerprint": "0" * 32}, {"pooling": "mean"}])
def test_partial_file_of_another_identity_is_started_afresh(tmp_path, values, changed):
    write(tmp_path, values, blocks=[0, 1])
    writer = write(tmp_path, values, about={**ABOUT, **changed}, blocks=[])
    assert writer.remaining_blocks() == list(range(6))
    assert not writer._values.any()


def test_partial_file_of_another_shape_is_started_afresh(tmp_path, values):
    write(tmp_path, values, blocks=[0])
    assert write(tmp_path, values[:-1], blocks=[]).remaining_blocks() == list(range(6))


def test_unfinished_is_not_finished(tmp_path, values):
    with pytest.raises(RunFailed, match="2 blocks are not written yet, the first is 1"):
        write(tmp_path, values, blocks=[0, 2, 3, 5]).finish()
    assert not embedding_paths(tmp_path, "mnli", "train")[0].exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_writer_refuses_non_finite_values_naming_the_row(tmp_path, values, bad):
    values[17, 2] = bad
    with pytest.raises(RunFailed, match="row 17 "):
        write(tmp_path, values)


def test_writer_refuses_numbers_too_large_for_half_precision(tmp_path, values):
    values[17, 2] = 7e4
    with pytest.raises(RunFailed, match="row 17 holds numbers beyond 65504, the largest of float16"):
        write(tmp_path, values, about={**ABOUT, "dtype": "float16"})


def test_folder_must_hold_exactly_one(tmp_path, values):
    with pytest.raises(InputError, match=r"holds no embeddings.*get_embeddings"):
        load_embeddings(tmp_path)
    path = write(tmp_path, values).finish()
    assert load_embeddings(tmp_path).path == path
    np.save(tmp_path / "pooler_embeddings_mnli_train.npy", values)
    with pytest.raises(InputError, match=r"several.*cls_embeddings_mnli_train.npy, pooler"):
        load_embeddings(tmp_path)


def damage_json(change):
    def damage(npy, about):
        about.write_text(json.dumps(change(json.loads(about.read_text()))))

    return damage


def save(change):
    return lambda npy, about: np.save(npy, change(np.load(npy)))


def with_one_bit_flipped(array):
    array.view(np.uint32)[5, 2] ^= 1
    return array


def with_nan(array):
    array[21, 1] = np.nan
    return array


BAD = {
    "missing": (lambda npy, about: npy.unlink(), "no such file"),
    "no json": (lambda npy, about: about.unlink(), "no cls_embeddings_mnli_train.json beside it"),
    "damaged json": (lambda npy, about: about.write_text("{"), "not readable as JSON"),
    "other json": (lambda npy, about: about.write_text("[1]"), "expected JSON of the kind dict"),
    "incomplete": (damage_json(lambda about: {**about, "complete": False}), "unfinished"),
    "no fingerprint": (damage_json(lambda a: {k: a[k] for k in a if k != "fingerprint"}), "lacks fingerprint"),
    "wrong n": (damage_json(lambda about: {**about, "n": N + 1}), r"shape \(23, 5\), but its json says \(24, 5\)"),
    "cut short": (lambda npy, about: npy.write_bytes(npy.read_bytes()[:-8]), "not a readable .npy"),
    "not npy": (lambda npy, about: npy.write_text("text"), "not a readable .npy"),
    "integers": (save(lambda a: a.astype(np.int64)), "holds int64"),
    "one axis": (save(np.ravel), "has shape"),
    "NaN": (save(with_nan), "row 21 holds NaN"),
    "one bit": (save(with_one_bit_flipped), "does not match the checksum"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_clear_line(tmp_path, values, name):
    damage, message = BAD[name]
    path = write(tmp_path, values).finish()
    damage(path, path.with_suffix(".json"))
    with pytest.raises(InputError, match=message):
        load_embeddings(path)


def test_check_refuses_other_data(tmp_path, values):
    embeddings = load_embeddings(write(tmp_path, values).finish())
    embeddings.check(examples())
    for other in (examples(n=N + 1), examples(fingerprint="0" * 32)):
        with pytest.raises(InputError, match="made for other data"):
            embeddings.check(other)


def test_digest_tells_checkpoints_apart(tmp_path, values):
    first = load_embeddings(write(tmp_path / "a", values).finish())
    same = load_embeddings(write(tmp_path / "b", values).finish())
    values[11] += 1
    other = load_embeddings(write(tmp_path / "c", values).finish())
    assert first.digest == same.digest != other.digest
