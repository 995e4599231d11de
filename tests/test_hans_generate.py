"""The challenge-set generator: HANS's thirty subcases, and in every pair what its heuristic promises."""

import itertools
from collections import Counter

import pytest

from hans import generate
from hans.data import load_hans
from utils.errors import InputError

# The names of HANS's own files. Written out here: a generator that renames one must fail.
NON_ENTAILED = {
    "lexical_overlap": "ln_subject/object_swap ln_preposition ln_relative_clause ln_passive ln_conjunction",
    "subsequence": "sn_NP/S sn_PP_on_subject sn_relative_clause_on_subject sn_past_participle sn_NP/Z",
    "constituent": "cn_embedded_under_if cn_after_if_clause cn_embedded_under_verb cn_disjunction cn_adverb",
}
ENTAILED = {
    "lexical_overlap": "le_relative_clause le_around_prepositional_phrase le_around_relative_clause le_conjunction le_passive",
    "subsequence": "se_conjunction se_adjective se_understood_object se_relative_clause_on_obj se_PP_on_obj",
    "constituent": "ce_embedded_under_since ce_after_since_clause ce_embedded_under_verb ce_conjunction ce_adverb",
}
COLUMNS = (
    "gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 pairID "
    "heuristic subcase template"
)
PER_SUBCASE = 300


@pytest.fixture(scope="module")
def rows():
    return generate.generate(PER_SUBCASE, 0, "eval")


def words(sentence: str) -> list[str]:
    """The words of a sentence in lower case, without its final full stop."""
    assert sentence.endswith(" .")
    return sentence.lower().split()[:-1]


def pairs(rows):
    return [(row["sentence1"], row["sentence2"]) for row in rows]


def test_the_thirty_subcases_of_hans_with_their_labels(rows):
    expected = {}
    for label, cases in (("non-entailment", NON_ENTAILED), ("entailment", ENTAILED)):
        for heuristic, names in cases.items():
            expected |= {(heuristic, name, label): PER_SUBCASE for name in names.split()}
    assert len(expected) == 30
    assert Counter((row["heuristic"], row["subcase"], row["gold_label"]) for row in rows) == expected


def test_every_pair_has_the_overlap_that_its_heuristic_promises(rows):
    """Whatever the label: that is what makes the heuristic wrong on half of them."""
    for row in rows:
        premise, hypothesis = words(row["sentence1"]), words(row["sentence2"])
        assert set(hypothesis) <= set(premise), row
        if row["heuristic"] != "lexical_overlap":
            n = len(hypothesis)
            assert any(premise[i : i + n] == hypothesis for i in range(len(premise) - n + 1)), row


def test_lexical_overlap_is_not_mere_subsequence(rows):
    """Otherwise its cells would measure the second heuristic twice."""
    for subcase in NON_ENTAILED["lexical_overlap"].split():
        if subcase in ("ln_preposition", "ln_passive", "ln_subject/object_swap"):
            of_it = [row for row in rows if row["subcase"] == subcase]
            assert not any(" ".join(words(r["sentence2"])) in " ".join(words(r["sentence1"])) for r in of_it)


def test_premises_differ_from_hypotheses_and_sentences_are_spelt_like_hans(rows):
    for premise, hypothesis in pairs(rows):
        assert premise != hypothesis and len(words(premise)) > 1
        for text in (premise, hypothesis):
            assert text[0].isupper() and text.endswith(" .") and "  " not in text and "\t" not in text
            assert text[1:] == text[1:].lower()


def test_grammar_number_agrees_and_people_of_a_sentence_differ(rows):
    people = {*generate.lexicon.PEOPLE}
    for row in rows:
        text = words(row["sentence1"])
        named = [word.removesuffix("s") for word in text if word.removesuffix("s") in people]
        assert len(named) == len(set(named)), row  # "the pilot praised the pilot" has no clear label
        for noun, verb in itertools.pairwise(text):
            if verb in ("was", "were"):
                assert noun.endswith("s") == (verb == "were"), row


def test_all_pairs_and_ids_are_distinct(rows):
    assert len(set(pairs(rows))) == len(rows)
    assert [row["pairID"] for row in rows] == [f"ex{i}" for i in range(len(rows))]
    assert all(row["template"].startswith(row["subcase"]) for row in rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_train_and_eval_share_no_pair_whatever_their_seeds(rows, seed):
    train = generate.generate(PER_SUBCASE, seed, "train")
    assert len(train) == len(rows) and not set(pairs(train)) & set(pairs(rows))


def test_one_seed_one_set_and_other_seeds_other_sets(rows):
    assert generate.generate(PER_SUBCASE, 0, "eval") == rows
    other = generate.generate(PER_SUBCASE, 1, "eval")
    assert len(set(pairs(other)) - set(pairs(rows))) > 0.5 * len(rows)


def test_asking_for_more_of_each_keeps_those_there_are(rows):
    fewer = generate.generate(PER_SUBCASE // 3, 0, "eval")
    assert set(pairs(fewer)) <= set(pairs(rows))


@pytest.mark.parametrize(("split", "file"), [("eval", "heuristics_evaluation_set"), ("train", "heuristics_train_set")])
def test_the_file_is_in_the_official_layout_and_reads_back(tmp_path, capsys, split, file):
    for folder in ("a", "b"):
        generate.main(["--output_dir", str(tmp_path / folder), "--per_subcase", "5", "--split", split, "--seed", "3"])
    path = tmp_path / "a" / f"{file}.txt"
    assert f"150 pairs (30 subcases x 5) in {path}" in capsys.readouterr().out
    assert path.read_bytes() == (tmp_path / "b" / f"{file}.txt").read_bytes()
    lines = path.read_text().splitlines()
    assert lines[0] == COLUMNS.replace(" ", "\t") and {line.count("\t") for line in lines} == {10}
    data, made = load_hans(path), generate.generate(5, 3, split)
    assert list(zip(data.premises, data.hypotheses, strict=True)) == pairs(made)
    for field, column in (("labels", "gold_label"), ("subcases", "subcase"), ("templates", "template")):
        assert getattr(data, field) == [row[column] for row in made]


def test_more_than_the_words_yield_is_one_clear_line():
    with pytest.raises(
        InputError, match=r"--per_subcase 1000000: \S+ has only about \d+ distinct pairs .*ask for fewer"
    ):
        generate.generate(1_000_000, 0, "eval")


@pytest.mark.parametrize("bad", [("--per_subcase", "0"), ("--seed", "-1"), ("--split", "dev")])
def test_bad_flags_are_refused(tmp_path, capsys, bad):
    with pytest.raises(SystemExit) as stopped:
        generate.main(["--output_dir", str(tmp_path), *bad])
    assert stopped.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
