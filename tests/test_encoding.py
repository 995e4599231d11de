"""Tokens as the model was pretrained on them: SentencePiece's own pieces, both segments, and a cache that never lies."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
from tokenizers import processors
from transformers import AlbertConfig, AutoConfig, AutoTokenizer, BertweetTokenizer

from tests import tiny
from utils.data.hub import from_pretrained
from utils.data.tokenizer import load_tokenizer, save_tokenizer, tokenizer_hash
from utils.data.tokens import encode
from utils.errors import InputError

HARD = [
    'A well-known (but old) bill-paying scheme - for £5, or 10€ – was "closed".',
    "e.g. the U.S. pays 10,000.50 dollars... (really)",
    "``quoted'' naïve café — (a)(b)-c",
    'no-one\'s mother-in-law said "(no)".',
]


def albert_text(text: str) -> str:
    """ALBERT's text clean-up before SentencePiece: quotes, accents, case (google-research/albert, preprocess_text)."""
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()


@pytest.fixture(scope="module")
def spiece(tmp_path_factory):
    """A folder as every 2020 ALBERT checkpoint is: config.json and spiece.model, no tokenizer.json."""
    folder = tmp_path_factory.mktemp("albert")
    model = tiny.SHARED / "albert" / "spiece.model"
    if model.exists():
        shutil.copy(model, folder / "spiece.model")
    else:
        train_spiece(folder)
    AlbertConfig(vocab_size=30000).save_pretrained(folder)
    return folder


def train_spiece(folder):
    """A small SentencePiece model with ALBERT's special and user-defined pieces."""
    import sentencepiece

    corpus = [albert_text(" ".join(p[:2])) for p in tiny.pairs(300)] + [albert_text(t) for t in HARD] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "spiece"), vocab_size=150, model_type="unigram",
        pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip


def texts_to_compare():
    if not tiny.SHARED.is_dir():
        return HARD
    from utils.data.examples import load_split
    from utils.data.tasks import get_task

    return HARD + load_split(get_task("mnli"), "dev_matched", data_dir=tiny.SHARED / "mnli_pairs").texts[0][:3000]


def test_a_spiece_folder_is_tokenised_exactly_as_sentencepiece_does(spiece, tmp_path):
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_file=str(spiece / "spiece.model"))
    texts = texts_to_compare()
    expected = [reference.encode(albert_text(text)) for text in texts]
    ours = load_tokenizer(str(spiece))
    assert ours(texts, add_special_tokens=False)["input_ids"] == expected
    # The library's own conversion differs, else this test would hold nothing.
    assert AutoTokenizer.from_pretrained(spiece)(HARD, add_special_tokens=False)["input_ids"] != expected[: len(HARD)]
    save_tokenizer(ours, tmp_path, segments=True)
    for again in (load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)):
        assert again(texts, add_special_tokens=False)["input_ids"] == expected
        both = again("red park", "big dog")
        assert both["token_type_ids"] == ours("red park", "big dog", return_token_type_ids=True)["token_type_ids"]
        assert set(both["token_type_ids"]) == {0, 1}
    assert "is_local" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_a_fast_albert_saved_by_us_returns_segments_unasked(tmp_path):
    tiny.write_config(tmp_path / "model", "albert")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # as transformers 5 sets it for ALBERT
    save_tokenizer(tokenizer, tmp_path / "saved", segments=True)
    assert set(AutoTokenizer.from_pretrained(tmp_path / "saved")("the dog", "a cat")["token_type_ids"]) == {0, 1}


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(str(tiny.write_tokenizer(tmp_path / "tokenizer")))


def encoded(tokenizer, tmp_path, n=20, max_length=12, **options):
    columns = tuple(list(column) for column in zip(*[(p, h) for p, h, _ in tiny.pairs(n)], strict=True))
    options = {"fingerprint": "f", "segments": True, "cache_dir": tmp_path / "cache"} | options
    return columns, encode(columns, tokenizer, max_length=max_length, **options)


def test_rows_are_those_of_the_tokenizer_with_both_segments(tokenizer, tmp_path):
    (premises, hypotheses), data = encoded(tokenizer, tmp_path)
    for i, (premise, hypothesis) in enumerate(zip(premises, hypotheses, strict=True)):
        row = slice(data.offsets[i], data.offsets[i + 1])
        expected = tokenizer(premise, hypothesis, truncation=True, max_length=12, return_token_type_ids=True)
        assert data.input_ids[row].tolist() == expected["input_ids"]
        assert data.token_type_ids[row].tolist() == expected["token_type_ids"]
        assert len(expected["input_ids"]) <= 12 and set(expected["token_type_ids"]) == {0, 1}


def test_models_without_segments_get_none(tokenizer, tmp_path):
    assert encoded(tokenizer, tmp_path, segments=False)[1].token_type_ids is None


def test_the_cache_is_used_and_keyed_by_content(tokenizer, tmp_path, monkeypatch):
    from utils.data.tokens import _tokenise

    _, first = encoded(tokenizer, tmp_path)
    calls = []
    real = _tokenise
    monkeypatch.setattr("utils.data.tokens._tokenise", lambda *a: calls.append(1) or real(*a))
    _, second = encoded(tokenizer, tmp_path)
    assert not calls and np.array_equal(first.input_ids, second.input_ids)
    encoded(tokenizer, tmp_path, max_length=10)
    encoded(tokenizer, tmp_path, fingerprint="other")
    encoded(tokenizer, tmp_path, segments=False)
    encoded(tokenizer, tmp_path, overwrite_cache=True)
    assert len(calls) == 4


def test_bad_lengths_and_names_are_refused(tokenizer, tmp_path):
    with pytest.raises(InputError, match="max_seq_length 3 leaves no room"):
        encoded(tokenizer, tmp_path, max_length=3)
    with pytest.raises(InputError, match="no such folder"):
        load_tokenizer("./nowhere/at/all")


def test_everything_that_changes_the_tokens_is_in_the_identity_of_a_tokenizer(tmp_path):
    def slow(codes="h e 1\n", **settings):
        (tmp_path / "vocab.txt").write_text("hello 1\nh@@ 1\na 1\n")
        (tmp_path / "bpe.codes").write_text(codes)
        return BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"), **settings)

    fast = AutoTokenizer.from_pretrained(tiny.write_tokenizer(tmp_path / "fast"))
    before = tokenizer_hash(fast)
    fast.split_special_tokens = True
    found = [before, *map(tokenizer_hash, (fast, slow(), slow(normalization=True), slow("l l 1\n")))]
    assert len(set(found)) == 5 and tokenizer_hash(slow()) == found[2]


def test_a_checkpoint_in_a_cache_of_its_own_is_found_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--name"
    tiny.write_config(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text("a" * 40)
    config = from_pretrained(AutoConfig, "owner/name", cache_dir=tmp_path, revision="v1")
    assert config.model_type == "albert"
    with pytest.raises(InputError, match="neither a folder here nor reachable on the hub"):
        from_pretrained(AutoConfig, "owner/name", cache_dir=tmp_path, revision="v2")


def test_an_example_without_tokens_is_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny.write_tokenizer(tmp_path))
    options = {"fingerprint": "f", "max_length": 8, "segments": False, "cache_dir": tmp_path / "cache"}
    assert encode((["a dog", ""],), tokenizer, **options).lengths.tolist() == [4, 2]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B", special_tokens=[]
    )
    with pytest.raises(InputError, match="example 1: its text is empty, and the tokenizer adds no special tokens"):
        encode((["a dog", ""],), tokenizer, **options)
