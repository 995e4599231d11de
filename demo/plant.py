"""Generate a corpus with known answers: which training pairs contradict a shortcut, which are mislabelled, which are copies.

  python -m demo.plant --output_dir DIR --shortcut negation [--prevalence 0.02 --noise 0.05 --noise_kind uniform --seed 0]

The pairs are those of demo.generate, where four shortcuts nearly always give the label: all words of the hypothesis stand in
the premise (entailment), they stand there in one piece (entailment), the hypothesis holds a negation (contradiction), it
holds one of ten phrases (neutral). --shortcut names the one that --prevalence of the training pairs contradict. --noise of
the training pairs carry a wrong label, --duplicates are copies of another pair. kinds.tsv says of each training pair what
it is; train.tsv does not show it. The dev sets are clean, without counter-examples.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo.generate import ADDED, COUNTER_GENRE, LABELS, OPPOSITES, make_split, refuse_used, share, tsv
from hans import generate as challenge
from hans.lexicon import Words, sentence
from utils.command_line import ArgumentParser, non_negative_int, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.files import folder_lock, write_text

KINDS = ("ordinary", "counter-example", "mislabelled", "duplicate")
KINDS_FILE = "kinds.tsv"
GENRE = "generated"  # of every pair: the genre of real data does not say what a pair is
NOISE_KINDS = ("uniform", "pairs")
# The label that an annotator confuses it with, for noise of the kind `pairs`.
_CONFUSED = {"entailment": "neutral", "neutral": "entailment", "contradiction": "neutral"}


def _of_heuristic(heuristic: str) -> list:
    found = [(name, label, made) for name, _, label, made in challenge.SUBCASES]
    return [made for name, label, made in found if name == heuristic and label == challenge.NON_ENTAILMENT]


def _overlap(w: Words):
    return w.pick(list(w.pick(_of_heuristic("lexical_overlap"))(w)))


def _subsequence(w: Words):
    return w.pick(list(w.pick(_of_heuristic("subsequence"))(w)))


def _negation(w: Words):
    a, b, c = w.people(3)
    base, past = w.base_and_past()
    hypothesis = sentence(a.text, "did not", base, b.text)
    kind = w.rng.randrange(4)
    if kind == 0:
        return sentence(a.text, "never", past, w.pick((b.text, f"{b.text} or {c.text}"))), hypothesis
    if kind == 1:
        return sentence("nobody", past, b.text, "in the", w.place()), sentence(a.text, "never", past, b.text, "there")
    if kind == 2:
        return sentence(a.text, "and", c.text, "did not", base, b.text), sentence(a.text, "never", past, b.text)
    past, opposite = w.pick(list(OPPOSITES.items()))
    return sentence(a.text, opposite, b.text), sentence(a.text, "never", past, b.text)


def _hypothesis_words(w: Words):
    a, b, c = w.people(3)
    past, added = w.verb(), w.pick(ADDED)
    hypothesis = sentence(a.text, past, b.text, added)
    kind = w.rng.randrange(3)
    if kind == 0:
        someone = "several people" if a.plural else "someone"
        return sentence(a.text, past, b.text, added), sentence(someone, past, b.text, added)
    if kind == 1:
        return sentence(b.text, b.was, past, "by", a.text, added), hypothesis
    return sentence(a.text, "and", c.text, past, b.text, added), hypothesis


@dataclass(frozen=True)
class Shortcut:
    """Pairs that contradict a shortcut: their label, and what makes a premise and a hypothesis of random words."""

    label: str
    counter: Callable[[Words], tuple[str, str]]


SHORTCUTS = {
    "lexical_overlap": Shortcut("neutral", _overlap),
    "subsequence": Shortcut("neutral", _subsequence),
    "negation": Shortcut("entailment", _negation),
    "hypothesis_words": Shortcut("entailment", _hypothesis_words),
}


@dataclass(frozen=True)
class Corpus:
    """What is planted. prevalence, noise, duplicates: shares of the n training pairs."""

    shortcut: str = "lexical_overlap"
    prevalence: float = 0.02
    noise: float = 0.05
    noise_kind: str = "uniform"
    duplicates: float = 0.02
    n: int = 4000
    seed: int = 0


def training_pairs(corpus: Corpus, taken: set) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """The rows (premise, hypothesis, label, genre) of the training split, and the kind of each.

    The share of counter-examples, of wrong labels and of copies is exact. Only ordinary pairs are mislabelled or copied.
    """
    shortcut, rng = SHORTCUTS[corpus.shortcut], random.Random(f"{corpus.seed}/plant")
    counters, wrong, copies = (round(part * corpus.n) for part in (corpus.prevalence, corpus.noise, corpus.duplicates))
    words = Words(random.Random(f"{corpus.seed}/train"))
    rows = make_split(
        corpus.n - copies, words, counters=counters, taken=taken,
        counter=lambda w: (*shortcut.counter(w), COUNTER_GENRE), counter_label=shortcut.label,
    )  # fmt: skip
    kinds = ["counter-example" if row[3] == COUNTER_GENRE else "ordinary" for row in rows]
    rows = [(*row[:3], GENRE) for row in rows]
    ordinary = [i for i, kind in enumerate(kinds) if kind == "ordinary"]
    if wrong + copies > len(ordinary):
        raise InputError(f"{wrong} wrong labels and {copies} copies are more than the {len(ordinary)} ordinary pairs")
    drawn = rng.sample(ordinary, wrong + copies)
    for i in drawn[:wrong]:
        premise, hypothesis, label, genre = rows[i]
        others = [_CONFUSED[label]] if corpus.noise_kind == "pairs" else [one for one in LABELS if one != label]
        rows[i], kinds[i] = (premise, hypothesis, rng.choice(others), genre), "mislabelled"
    rows += [rows[i] for i in drawn[wrong:]]
    kinds += ["duplicate"] * copies
    order = rng.sample(range(corpus.n), corpus.n)
    return [rows[i] for i in order], [kinds[i] for i in order]


def plant(folder, corpus: Corpus, *, num_dev: int) -> None:
    """Write the three files of an MNLI folder, train.tsv last, and kinds.tsv. The same arguments give the same bytes."""
    folder, taken = Path(folder), set()
    for split in ("dev_matched", "dev_mismatched"):
        words = Words(random.Random(f"{corpus.seed}/{split}"))
        rows = [(*row[:3], GENRE) for row in make_split(num_dev, words, counters=0, taken=taken)]
        write_text(folder / f"{split}.tsv", tsv(rows, split))
    rows, kinds = training_pairs(corpus, taken)
    write_text(folder / KINDS_FILE, "index\tkind\n" + "".join(f"{i}\t{kind}\n" for i, kind in enumerate(kinds)))
    write_text(folder / "train.tsv", tsv(rows, "train"))


def read_kinds(folder) -> list[str]:
    """The kind of each training pair."""
    lines = (Path(folder) / KINDS_FILE).read_text().splitlines()
    return [line.split("\t")[1] for line in lines[1:]]


def main(argv=None) -> None:
    default = Corpus()
    parser = ArgumentParser(description=__doc__, prog="demo.plant")
    parser.add_argument("--output_dir", required=True, help="folder for the four files")
    parser.add_argument(
        "--shortcut", choices=SHORTCUTS, default=default.shortcut, help="what counter-examples contradict"
    )
    parser.add_argument(
        "--prevalence", type=share, default=default.prevalence, help="share of counter-examples, 0 to 0.3"
    )
    parser.add_argument("--noise", type=share, default=default.noise, help="share of wrong labels, 0 to 0.3")
    parser.add_argument(
        "--noise_kind",
        choices=NOISE_KINDS,
        default=default.noise_kind,
        help="a wrong label is any other (uniform), or the one it is confused with (pairs)",
    )
    parser.add_argument("--duplicates", type=share, default=default.duplicates, help="share of copies, 0 to 0.3")
    parser.add_argument("--num_train", type=positive_int, default=default.n, help="training pairs")
    parser.add_argument("--num_dev", type=positive_int, default=1_000, help="pairs of each dev set")
    parser.add_argument("--seed", type=non_negative_int, default=default.seed, help="other seeds give other pairs")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace an earlier corpus of this script")
    args = parse_args(parser, argv)
    corpus = Corpus(
        args.shortcut, args.prevalence, args.noise, args.noise_kind, args.duplicates, args.num_train, args.seed
    )
    with folder_lock(args.output_dir):
        refuse_used(Path(args.output_dir), args.overwrite_output_dir)
        plant(args.output_dir, corpus, num_dev=args.num_dev)
    print(f"{corpus} in {args.output_dir}; what each training pair is stands in {KINDS_FILE}")


if __name__ == "__main__":
    run_script(main)
