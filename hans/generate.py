"""Generate a challenge set in HANS's layout, with our own words and templates: any size, labels right by construction.

  python -m hans.generate --output_dir DIR --per_subcase 1000 --seed 0 [--split train|eval]

Three heuristics x ten subcases with HANS's names (McCoy et al. 2019, arXiv 1902.01007, tables 4 to 6), five entailed and
five not, in the official 11 columns (the parse columns are empty). Writes heuristics_evaluation_set.txt, or
heuristics_train_set.txt for --split train. All pairs differ; which of the two splits a pair can be in is decided by its
own text, so train and eval never share one, whatever their seeds and sizes.
"""

import random
import zlib
from pathlib import Path

from hans import lexicon
from hans.lexicon import Noun, Words, sentence
from utils.command_line import ArgumentParser, non_negative_int, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.files import folder_lock, refuse_finished, write_text

HEADER = (
    "gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 pairID "
    "heuristic subcase template"
).split()
FILES = {"eval": "heuristics_evaluation_set.txt", "train": "heuristics_train_set.txt"}


# ------------------------------------------------------------------------------- lexical overlap: all words, any order
def le_relative_clause(w: Words):
    a, b, c = w.people(3)
    v, u = w.two_verbs()
    that = w.pick(("that", "who"))
    yield sentence(a.text, v, b.text, that, u, c.text), sentence(b.text, u, c.text)
    yield sentence(a.text, that, v, b.text, u, c.text), sentence(a.text, v, b.text)


def le_around_prepositional_phrase(w: Words):
    a, b, c = w.people(3)
    v, near = w.verb(), w.pick(lexicon.PREPOSITIONS)
    yield sentence(a.text, near, b.text, v, c.text), sentence(a.text, v, c.text)


def le_around_relative_clause(w: Words):
    a, b, c = w.people(3)
    v, u = w.two_verbs()
    that = w.pick(("that", "who"))
    yield sentence(a.text, that, v, b.text, u, c.text), sentence(a.text, u, c.text)
    yield sentence(a.text, that, b.text, v, u, c.text), sentence(a.text, u, c.text)


def le_conjunction(w: Words):
    a, b, c = w.people(3)
    v = w.verb()
    yield sentence(a.text, "and", b.text, v, c.text), sentence(a.text, v, c.text)
    yield sentence(a.text, v, b.text, "and", c.text), sentence(a.text, v, c.text)


def le_passive(w: Words):
    a, b = w.people(2)
    v = w.verb()
    yield sentence(a.text, a.was, v, "by", b.text), sentence(b.text, v, a.text)


def ln_subject_object_swap(w: Words):
    a, b = w.people(2)
    v = w.verb()
    yield sentence(a.text, v, b.text), sentence(b.text, v, a.text)


def ln_preposition(w: Words):
    a, b, c = w.people(3)
    v, near = w.verb(), w.pick(lexicon.PREPOSITIONS)
    yield sentence(a.text, v, b.text, near, c.text), sentence(b.text, v, a.text)
    yield sentence(a.text, near, b.text, v, c.text), sentence(c.text, v, a.text)


def ln_relative_clause(w: Words):
    a, b, c = w.people(3)
    v, u = w.two_verbs()
    that = w.pick(("that", "who"))
    yield sentence(a.text, that, v, b.text, u, c.text), sentence(b.text, u, a.text)
    yield sentence(a.text, v, b.text, that, u, c.text), sentence(c.text, v, a.text)


def ln_passive(w: Words):
    a, b = w.people(2)
    v = w.verb()
    yield sentence(a.text, a.was, v, "by", b.text), sentence(a.text, v, b.text)


def ln_conjunction(w: Words):
    a, b, c = w.people(3)
    v = w.verb()
    yield sentence(a.text, "and", b.text, v, c.text), sentence(a.text, v, b.text)
    yield sentence(a.text, v, b.text, "and", c.text), sentence(b.text, v, c.text)


# -------------------------------------------------------------------------------------- subsequence: contiguous words
def se_conjunction(w: Words):
    a, b, c = w.people(3)
    v = w.verb()
    yield sentence(a.text, "and", b.text, v, c.text), sentence(b.text, v, c.text)
    yield sentence(a.text, v, b.text, "and", c.text), sentence(a.text, v, b.text)


def se_adjective(w: Words):
    a, b, c = w.people(3)
    a = Noun(a.word, plural=True)
    v, adjective = w.verb(), w.pick(lexicon.ADJECTIVES)
    yield sentence(adjective, a.bare, v, b.text), sentence(a.bare, v, b.text)
    yield sentence(adjective, a.bare, v, b.text, "and", c.text), sentence(a.bare, v, b.text, "and", c.text)


def se_understood_object(w: Words):
    a, b = w.people(2)
    verb = w.pick(list(lexicon.UNDERSTOOD))
    thing = f"the {w.pick(lexicon.UNDERSTOOD[verb])}"
    yield sentence(a.text, verb, thing), sentence(a.text, verb)
    yield sentence(a.text, "and", b.text, verb, thing), sentence(a.text, "and", b.text, verb)


def se_relative_clause_on_obj(w: Words):
    a, b, c = w.people(3)
    v, u = w.two_verbs()
    yield sentence(a.text, v, b.text, w.pick(("that", "who")), u, c.text), sentence(a.text, v, b.text)


def se_pp_on_obj(w: Words):
    a, b, c = w.people(3)
    yield (sentence(a.text, v := w.verb(), b.text, w.pick(lexicon.PREPOSITIONS), c.text), sentence(a.text, v, b.text))


def sn_np_s(w: Words):
    a, b, c = w.people(3)
    verb = w.pick(lexicon.SENTENCE_OR_OBJECT)
    yield sentence(a.text, verb, b.text, w.intransitive()), sentence(a.text, verb, b.text)
    yield sentence(a.text, verb, b.text, w.verb(), c.text), sentence(a.text, verb, b.text)


def sn_np_z(w: Words):
    a, b, c = w.people(3)
    verb, while_ = w.pick(lexicon.OPTIONAL_OBJECT), w.pick(lexicon.TRUE_CONNECTIVES)
    yield sentence(while_, a.text, verb, b.text, w.intransitive()), sentence(a.text, verb, b.text)
    yield sentence(while_, a.text, verb, b.text, w.verb(), c.text), sentence(a.text, verb, b.text)


def sn_pp_on_subject(w: Words):
    a, b, c = w.people(3)
    near = w.pick(lexicon.PREPOSITIONS)
    v, i = w.verb(), w.intransitive()
    yield sentence(a.text, near, b.text, v, c.text), sentence(b.text, v, c.text)
    yield sentence(a.text, near, b.text, i), sentence(b.text, i)


def sn_past_participle(w: Words):
    a, b = w.people(2)
    trained, place = w.pick(lexicon.REDUCED), f"in the {w.place()}"
    yield sentence(a.text, trained, place, w.intransitive()), sentence(a.text, trained, place)
    yield sentence(a.text, trained, place, w.verb(), b.text), sentence(a.text, trained, place)


def sn_relative_clause_on_subject(w: Words):
    a, b, c = w.people(3)
    v, u = w.two_verbs()
    that, i = w.pick(("that", "who")), w.intransitive()
    yield sentence(a.text, that, v, b.text, u, c.text), sentence(b.text, u, c.text)
    yield sentence(a.text, that, v, b.text, i), sentence(b.text, i)


# -------------------------------------------------------------------------------- constituent: a clause of the premise
def _clause(w: Words, a, b) -> str:
    return f"{a.text} {w.intransitive()}" if w.rng.random() < 0.4 else f"{a.text} {w.verb()} {b.text}"


def _two_clauses(w: Words) -> tuple[str, str]:
    a, b, c, d = w.people(4)
    return _clause(w, a, b), _clause(w, c, d)


def ce_embedded_under_since(w: Words):
    first, second = _two_clauses(w)
    yield sentence(w.pick(lexicon.TRUE_CONNECTIVES), first, ",", second), sentence(first)


def ce_after_since_clause(w: Words):
    first, second = _two_clauses(w)
    yield sentence(w.pick(lexicon.TRUE_CONNECTIVES), first, ",", second), sentence(second)


def ce_embedded_under_verb(w: Words):
    a, b, c = w.people(3)
    clause = _clause(w, b, c)
    yield sentence(a.text, w.pick(lexicon.FACTIVE), "that", clause), sentence(clause)


def ce_conjunction(w: Words):
    first, second = _two_clauses(w)
    yield sentence(first, ", and", second), sentence(first)
    yield sentence(first, ", and", second), sentence(second)


def ce_adverb(w: Words):
    a, b = w.people(2)
    clause = _clause(w, a, b)
    yield sentence(w.pick(lexicon.TRUE_ADVERBS), clause), sentence(clause)


def cn_embedded_under_if(w: Words):
    first, second = _two_clauses(w)
    yield sentence(w.pick(lexicon.OPEN_CONNECTIVES), first, ",", second), sentence(first)


def cn_after_if_clause(w: Words):
    first, second = _two_clauses(w)
    yield sentence(w.pick(lexicon.OPEN_CONNECTIVES[:3]), first, ",", second), sentence(second)


def cn_embedded_under_verb(w: Words):
    a, b, c = w.people(3)
    clause = _clause(w, b, c)
    yield sentence(a.text, w.pick(lexicon.NON_FACTIVE), "that", clause), sentence(clause)


def cn_disjunction(w: Words):
    first, second = _two_clauses(w)
    yield sentence(first, ", or", second), sentence(first)
    yield sentence(first, ", or", second), sentence(second)


def cn_adverb(w: Words):
    a, b = w.people(2)
    clause = _clause(w, a, b)
    yield sentence(w.pick(lexicon.OPEN_ADVERBS), clause), sentence(clause)


ENTAILMENT, NON_ENTAILMENT = "entailment", "non-entailment"
# (heuristic, HANS's subcase name, gold label, its templates)
SUBCASES = tuple(
    (heuristic, subcase, NON_ENTAILMENT if subcase[1] == "n" else ENTAILMENT, templates)
    for heuristic, cases in {
        "lexical_overlap": {
            "ln_subject/object_swap": ln_subject_object_swap,
            "ln_preposition": ln_preposition,
            "ln_relative_clause": ln_relative_clause,
            "ln_passive": ln_passive,
            "ln_conjunction": ln_conjunction,
            "le_relative_clause": le_relative_clause,
            "le_around_prepositional_phrase": le_around_prepositional_phrase,
            "le_around_relative_clause": le_around_relative_clause,
            "le_conjunction": le_conjunction,
            "le_passive": le_passive,
        },
        "subsequence": {
            "sn_NP/S": sn_np_s,
            "sn_PP_on_subject": sn_pp_on_subject,
            "sn_relative_clause_on_subject": sn_relative_clause_on_subject,
            "sn_past_participle": sn_past_participle,
            "sn_NP/Z": sn_np_z,
            "se_conjunction": se_conjunction,
            "se_adjective": se_adjective,
            "se_understood_object": se_understood_object,
            "se_relative_clause_on_obj": se_relative_clause_on_obj,
            "se_PP_on_obj": se_pp_on_obj,
        },
        "constituent": {
            "cn_embedded_under_if": cn_embedded_under_if,
            "cn_after_if_clause": cn_after_if_clause,
            "cn_embedded_under_verb": cn_embedded_under_verb,
            "cn_disjunction": cn_disjunction,
            "cn_adverb": cn_adverb,
            "ce_embedded_under_since": ce_embedded_under_since,
            "ce_after_since_clause": ce_after_since_clause,
            "ce_embedded_under_verb": ce_embedded_under_verb,
            "ce_conjunction": ce_conjunction,
            "ce_adverb": ce_adverb,
        },
    }.items()
    for subcase, templates in cases.items()
)


def split_of(premise: str, hypothesis: str) -> str:
    """The only split that may hold this pair, by its text alone."""
    return "train" if zlib.crc32(f"{premise}\t{hypothesis}".encode()) % 2 else "eval"


def generate(per_subcase: int, seed: int, split: str) -> list[dict]:
    """`per_subcase` distinct pairs of each of the 30 subcases, as rows by HEADER's names.

    Raises InputError where a subcase's words do not yield that many.
    """
    rows = []
    for heuristic, subcase, label, templates in SUBCASES:
        # Each subcase has its own stream: asking for more of one changes no other.
        words = Words(random.Random(f"{seed}/{split}/{subcase}"))
        seen, misses = set(), 0
        while len(seen) < per_subcase:
            before = len(seen)
            for number, pair in enumerate(templates(words), start=1):
                if len(seen) < per_subcase and pair not in seen and split_of(*pair) == split:
                    seen.add(pair)
                    rows.append(_row(len(rows), pair, label, heuristic, subcase, number))
            misses = 0 if len(seen) > before else misses + 1
            if misses > 2000:
                raise InputError(
                    f"--per_subcase {per_subcase}: {subcase} has only about {len(seen)} distinct pairs for the {split} "
                    "split; ask for fewer"
                )
    return rows


def _row(number, pair, label, heuristic, subcase, template) -> dict:
    row = dict.fromkeys(HEADER, "")
    row.update(gold_label=label, sentence1=pair[0], sentence2=pair[1], pairID=f"ex{number}")
    row.update(heuristic=heuristic, subcase=subcase, template=f"{subcase}_{template}")
    return row


def _is_ours(path: Path) -> bool:
    """Whether this generator wrote the file: its parse columns are empty, those of the official sets are not."""
    with open(path, "rb") as file:
        header, first = file.readline(1000), file.readline(1000)
    return header.split() == [name.encode() for name in HEADER] and first.split(b"\t")[1:5] == [b""] * 4


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="hans.generate")
    parser.add_argument("--output_dir", required=True, help="folder for the file")
    parser.add_argument("--per_subcase", type=positive_int, default=1000, help="pairs of each of the 30 subcases")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="other seeds give other pairs")
    parser.add_argument("--split", choices=("eval", "train"), default="eval", help="which of the two disjoint sets")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace an earlier set of this script")
    args = parse_args(parser, argv)
    path = Path(args.output_dir) / FILES[args.split]
    with folder_lock(args.output_dir):
        if path.exists() and not _is_ours(path):
            raise InputError(f"--output_dir {args.output_dir}: {path.name} was not generated here; give another folder")
        refuse_finished(args.output_dir, path.name, args.overwrite_output_dir)
        rows = generate(args.per_subcase, args.seed, args.split)
        lines = ["\t".join(HEADER), *("\t".join(row[name] for name in HEADER) for row in rows)]
        write_text(path, "\n".join(lines) + "\n")
    print(f"{len(rows)} pairs ({len(SUBCASES)} subcases x {args.per_subcase}) in {path}")


if __name__ == "__main__":
    run_script(main)
