"""The demo's corpus and tokenizer: the layout of MNLI, exactly the counter-examples asked for, nothing leaking into dev,
and no text that the committed tokenizer cannot spell.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

import cluster_embeddings
from demo import generate, run
from hans import generate as challenge
from hans import lexicon
from tests import tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task

FILES = ("train", "dev_matched", "dev_mismatched")
LABELS = ("contradiction", "entailment", "neutral")
N_TRAIN, N_DEV, SHARE = 1500, 300, 0.05
ALBERT = tiny.ROOT / "demo" / "albert-tiny"


def make(folder: Path, *, num_train=N_TRAIN, num_dev=N_DEV, share=SHARE, seed=0) -> Path:
    flags = {"output_dir": folder, "num_train": num_train, "num_dev": num_dev, "counter_share": share, "seed": seed}
    generate.main([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def splits(corpus):
    return {split: load_split(get_task("mnli"), split, data_dir=corpus) for split in FILES}


def words(text: str) -> set[str]:
    return set(text.lower().split()) - {"."}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -------------------------------------------------------------------------------------------------------------- layout
def test_the_layout_is_that_of_mnli_in_glue(corpus):
    for split, columns in (("train", 12), ("dev_matched", 16), ("dev_mismatched", 16)):
        lines = (corpus / f"{split}.tsv").read_text().splitlines()
        header = lines[0].split("\t")
        assert {len(line.split("\t")) for line in lines} == {columns}
        assert header[:4] == ["index", "promptID", "pairID", "genre"] and header[-1] == "gold_label"
        assert header[8:10] == ["sentence1", "sentence2"] and header[10] == "label1"
        assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(len(lines) - 1)]
    assert sorted(contents(corpus)) == sorted(f"{split}.tsv" for split in FILES)


def test_it_reads_as_mnli_and_is_balanced(splits):
    for split, n in (("train", N_TRAIN), ("dev_matched", N_DEV), ("dev_mismatched", N_DEV)):
        examples = splits[split]
        assert len(examples) == n and examples.label_names == LABELS
        assert Counter(examples.labels.tolist()) == {0: n // 3, 1: n // 3, 2: n // 3}
        # Shuffled: no prefix of the file is one class.
        assert len(set(examples.labels[:20].tolist())) == 3


# ---------------------------------------------------------------------------------------------------- counter-examples
def test_counter_examples_are_exactly_as_many_as_asked_and_only_in_train(splits):
    assert Counter(splits["train"].genres)["counter"] == round(SHARE * N_TRAIN) == 75
    for split in FILES[1:]:
        assert "counter" not in splits[split].genres and len(set(splits[split].genres)) > 3


def test_counter_examples_are_neutral_with_every_word_in_the_premise(splits):
    train = splits["train"]
    chosen = [i for i, genre in enumerate(train.genres) if genre == "counter"]
    for i in chosen:
        assert LABELS[train.labels[i]] == "neutral"
        assert words(train.texts[1][i]) <= words(train.texts[0][i])
    assert max(chosen) > N_TRAIN // 2 > min(chosen)  # spread over the file, not at one end


def test_without_them_full_overlap_means_entailment(splits):
    """The shortcut that the counter-examples contradict has to be there, in dev as in train."""
    for split, examples in splits.items():
        overlapping = Counter(
            LABELS[label]
            for premise, hypothesis, label, genre in zip(*examples.texts, examples.labels, examples.genres, strict=True)
            if genre != "counter" and words(hypothesis) <= words(premise)
        )
        entailed = Counter(examples.labels.tolist())[LABELS.index("entailment")]
        assert overlapping["entailment"] / overlapping.total() > 0.95, split
        assert overlapping["entailment"] / entailed > 0.7, split


def test_none_at_a_share_of_zero_and_a_share_of_ten_is_refused(tmp_path, capsys):
    make(tmp_path / "none", num_train=60, num_dev=6, share=0)
    assert "\tcounter\t" not in (tmp_path / "none" / "train.tsv").read_text()
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "ten", share=10)
    assert stopped.value.code == 2 and "--counter_share" in capsys.readouterr().err and not (tmp_path / "ten").exists()


# ----------------------------------------------------------------------------------------------------- what is separate
def test_no_pair_occurs_twice_in_all_three_files(splits):
    pairs = Counter(pair for examples in splits.values() for pair in zip(*examples.texts, strict=True))
    assert len(pairs) == N_TRAIN + 2 * N_DEV and set(pairs.values()) == {1}


def test_people_verbs_and_places_of_the_mismatched_set_are_unknown_to_training(splits):
    def vocabulary(split):
        return {word for column in splits[split].texts for text in column for word in words(text)}

    def number(nouns):
        return {form for noun in nouns for form in (noun, noun + "s")}

    new = number(lexicon.OTHER_PEOPLE) | set(lexicon.OTHER_TRANSITIVE.values()) | set(lexicon.OTHER_PLACES)
    usual = number(lexicon.PEOPLE) | set(lexicon.TRANSITIVE.values()) | set(lexicon.PLACES)
    assert not new & vocabulary("train") and not new & vocabulary("dev_matched")
    things = {thing for things in lexicon.UNDERSTOOD.values() for thing in things}  # a barn is painted, too
    assert not (number(lexicon.PEOPLE) | set(lexicon.PLACES)) & vocabulary("dev_mismatched") - things
    assert len(new & vocabulary("dev_mismatched")) > 0.9 * len(new)
    assert len(usual & vocabulary("train")) > 0.9 * len(usual)


# -------------------------------------------------------------------------------------------------------- same and other
def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(corpus, tmp_path):
    assert contents(make(tmp_path / "again")) == contents(corpus)
    other = contents(make(tmp_path / "other", seed=1))
    assert all(other[name] != content for name, content in contents(corpus).items())


def test_more_training_pairs_or_counter_examples_leave_the_dev_sets_as_they_are(corpus, tmp_path):
    changed = make(tmp_path / "more", num_train=N_TRAIN + 600, share=0.2)
    for split in FILES[1:]:
        assert (changed / f"{split}.tsv").read_bytes() == (corpus / f"{split}.tsv").read_bytes()
    assert (changed / "train.tsv").read_bytes() != (corpus / "train.tsv").read_bytes()


# ----------------------------------------------------------------------------------------------------------- tokenizer
@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ALBERT)


ODD = (
    "Çağrı’nın “naïve” café — 3½ €!", "日本語のテキスト", "🦊🏳️‍🌈", "a\u0301\u200b\u00a0b\u2028c", "\x00\x07 tab\there", "",
    "ﬁne ＷＩＤＥ Ⅻ", "عربي עברית ไทย", "\ud7ff\U0010ffff", "x" * 500,
)  # fmt: skip


def test_no_text_is_unknown_to_it(tokenizer):
    for text in ODD:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids, text
        assert max(ids) < json.loads((ALBERT / "config.json").read_text())["vocab_size"]
    assert tokenizer.decode(tokenizer("日本語 🦊")["input_ids"], skip_special_tokens=True).strip() == "日本語 🦊"


def test_pairs_come_with_both_segments_unasked(tokenizer):
    pair = tokenizer("The pilot laughed .", "The pilot waited .")
    ids, types = pair["input_ids"], pair["token_type_ids"]
    first = ids.index(tokenizer.sep_token_id)
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert types == [0] * (first + 1) + [1] * (len(ids) - first - 1) and 1 in types


def test_words_of_the_corpus_are_few_pieces(tokenizer, splits):
    """One piece a word, or nearly: what keeps the demo's sequences short."""
    texts = [text for examples in splits.values() for column in examples.texts for text in column[:100]]
    texts += [row[name] for row in challenge.generate(2, 0, "eval") for name in ("sentence1", "sentence2")]
    pieces = sum(len(ids) - 2 for ids in tokenizer(texts)["input_ids"])
    assert pieces <= 1.05 * sum(len(text.split()) for text in texts)


def test_it_is_its_own_file_and_small(tokenizer):
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(ALBERT / "tokenizer.json"))
    for text in (*ODD, "The nurses who thanked the poet laughed ."):
        encoded = raw.encode(text, "and another")
        ours = tokenizer(text, "and another")
        assert (encoded.ids, encoded.type_ids) == (ours["input_ids"], ours["token_type_ids"])
    assert sum(path.stat().st_size for path in ALBERT.iterdir()) < 300_000


def test_config_and_tokenizer_belong_together(tokenizer):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(ALBERT)
    assert len(tokenizer) <= config.vocab_size and config.pad_token_id == tokenizer.pad_token_id
    assert config.type_vocab_size == 2 and tokenizer.model_max_length == config.max_position_embeddings


def test_a_stage_of_the_demo_is_done_when_its_last_file_is_there(tmp_path, monkeypatch):
    finished = {}
    monkeypatch.setattr("demo.run.stage", lambda title, *command, done: finished.setdefault(command[0], done))
    run.main(["--output_dir", str(tmp_path)])
    assert finished["cluster_embeddings.py"].name == cluster_embeddings.FINISHED
