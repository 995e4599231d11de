"""Generate the demo's NLI corpus in MNLI's GLUE layout: train.tsv, dev_matched.tsv, dev_mismatched.tsv.

  python -m demo.generate --output_dir DIR [--num_train 20000 --num_dev 1000 --counter_share 0.02 --seed 0]

Three balanced labels. As in MNLI, word overlap usually goes with entailment: a hypothesis whose words all stand in the
premise is nearly always entailed, so a model can score well on dev by that shortcut. Exactly round(counter_share * n)
training pairs contradict it (full overlap, label neutral: roles swapped, the wrong subject, an open condition, ...);
their `genre` column says `counter`, that of the others which family of pairs they come from, so that an analysis can
find them. The dev sets hold none. dev_mismatched tells of other people, verbs and places than training.
"""

import random
from pathlib import Path

from hans import generate as challenge
from hans import lexicon
from hans.lexicon import Words, sentence
from utils.command_line import ArgumentParser, non_negative_int, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.files import folder_lock, refuse_finished, write_text

MOST_PAIRS = 2_000_000  # in all three files; half a minute, and a gigabyte of memory
LABELS = ("contradiction", "entailment", "neutral")
COUNTER_GENRE = "counter"
_PARSES = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]

# Full overlap and entailed: the challenge set's own entailed templates, with the demo's words.
_OVERLAPPING = [t for _, _, label, t in challenge.SUBCASES if label == challenge.ENTAILMENT]
_COUNTER = [t for _, _, label, t in challenge.SUBCASES if label == challenge.NON_ENTAILMENT]
ADDED = (
    "for a friend", "at night", "with a smile", "in secret", "on purpose", "every day", "for the first time",
    "without a reason", "for an hour", "in the morning",
)  # fmt: skip
OPPOSITES = {
    "praised": "insulted", "trusted": "suspected", "thanked": "cursed", "rescued": "abandoned", "greeted": "avoided",
    "followed": "escaped", "amused": "bored", "warned": "fooled",
}  # fmt: skip


def _premise(w: Words):
    """A premise and the plain clause in it (subject, (base form, past tense), object) that hypotheses are about."""
    a, b, c = w.people(3)
    verb = w.base_and_past()
    past = verb[1]
    shape = w.rng.randrange(5)
    if shape == 0:
        return sentence(a.text, past, b.text, "in the", w.place()), a, verb, b
    if shape == 1:
        return sentence(a.text, w.pick(lexicon.PREPOSITIONS), c.text, past, b.text), a, verb, b
    if shape == 2:
        return sentence(a.text, past, b.text, "and", c.text), a, verb, b
    if shape == 3:
        return (
            sentence(w.pick(lexicon.TRUE_CONNECTIVES), c.text, w.intransitive(), ",", a.text, past, b.text),
            a,
            verb,
            b,
        )
    return sentence(a.text, past, b.text), a, verb, b


def _entailment(w: Words):
    if w.rng.random() < 0.85:
        pairs = list(w.pick(_OVERLAPPING)(w))
        return (*w.pick(pairs), "overlap")
    premise, a, (_, past), b = _premise(w)
    someone = "several people" if a.plural else "someone"
    return premise, sentence(someone, past, b.text), "paraphrase"


def _contradiction(w: Words):
    premise, a, (base, past), b = _premise(w)
    kind = w.rng.random()
    if kind < 0.4:
        return premise, sentence(a.text, "did not", base, b.text), "negation"
    if kind < 0.7:
        return premise, sentence(a.text, "never", past, b.text), "negation"
    if kind < 0.85 or past not in OPPOSITES:
        return premise, sentence("nobody", past, b.text), "negation"
    return premise, sentence(a.text, OPPOSITES[past], b.text), "opposite"


def _neutral(w: Words):
    premise, a, (_, past), b = _premise(w)
    kind = w.rng.random()
    if kind < 0.7:
        return premise, sentence(a.text, past, b.text, w.pick(ADDED)), "added detail"
    if kind < 0.85:
        return premise, sentence(a.text, past, b.text, "because", a.text, "had a plan"), "added reason"
    (other,) = w.people(1)
    if other.word in premise.lower():
        return _neutral(w)
    return premise, sentence(other.text, past, b.text), "another person"


def _counter(w: Words):
    return (*w.pick(list(w.pick(_COUNTER)(w))), COUNTER_GENRE)


_MAKERS = {"contradiction": _contradiction, "entailment": _entailment, "neutral": _neutral}


def make_split(
    n: int, words: Words, *, counters: int, taken: set, counter=_counter, counter_label="neutral"
) -> list[tuple[str, str, str, str]]:
    """n distinct (premise, hypothesis, label, genre), balanced labels, `counters` of them counter-examples; pairs in
    `taken` are avoided and new ones added to it. counter(words) makes a counter-example, whose label is `counter_label`.
    Raises InputError where the words do not yield that many."""
    wanted = [LABELS[i % 3] for i in range(n)]
    possible = [i for i, label in enumerate(wanted) if label == counter_label]
    if counters > len(possible):
        raise InputError(
            f"--counter_share: {counters} counter-examples are more than the {len(possible)} {counter_label} pairs"
        )
    counter_at = set(words.rng.sample(possible, counters))
    rows = []
    for i, label in enumerate(wanted):
        maker = counter if i in counter_at else _MAKERS[label]
        for _ in range(1000):
            premise, hypothesis, genre = maker(words)
            if (premise, hypothesis) not in taken:
                break
        else:
            raise InputError(f"{n} pairs are more than the demo's words yield without repeats; ask for fewer")
        taken.add((premise, hypothesis))
        rows.append((premise, hypothesis, label, genre))
    words.rng.shuffle(rows)
    return rows


def tsv(rows, split: str) -> str:
    """The text of a file in MNLI's layout. rows: (premise, hypothesis, label, genre)."""
    annotators = ["label1"] if split == "train" else [f"label{k}" for k in range(1, 6)]
    lines = [["index", "promptID", "pairID", "genre", *_PARSES, "sentence1", "sentence2", *annotators, "gold_label"]]
    for i, (premise, hypothesis, label, genre) in enumerate(rows):
        others = [""] * (len(annotators) - 1)
        lines.append([str(i), str(i), f"{split}{i}", genre, *[""] * 4, premise, hypothesis, label, *others, label])
    return "\n".join("\t".join(fields) for fields in lines) + "\n"


def generate(folder, *, num_train: int, num_dev: int, counter_share: float, seed: int) -> None:
    """Write the three files, train.tsv last. The same arguments give the same bytes; no pair occurs twice in all.

    Raises InputError where there are to be more than MOST_PAIRS.
    """
    if num_train + 2 * num_dev > MOST_PAIRS:
        raise InputError(
            f"--num_train {num_train} and two dev sets of --num_dev {num_dev} are more than {MOST_PAIRS:,} pairs, more than "
            "the demo's words are good for; ask for fewer"
        )
    folder, taken = Path(folder), set()
    mismatched = {
        "people": lexicon.OTHER_PEOPLE,
        "transitive": lexicon.OTHER_TRANSITIVE,
        "places": lexicon.OTHER_PLACES,
    }
    plan = {
        # dev first: asking for more training pairs leaves the dev sets as they are.
        "dev_matched": (num_dev, {}, 0),
        "dev_mismatched": (num_dev, mismatched, 0),
        "train": (num_train, {}, round(counter_share * num_train)),
    }
    for split, (n, vocabulary, counters) in plan.items():
        words = Words(random.Random(f"{seed}/{split}"), **vocabulary)
        write_text(folder / f"{split}.tsv", tsv(make_split(n, words, counters=counters, taken=taken), split))


def refuse_used(folder: Path, overwrite: bool) -> None:
    """Raise InputError where the folder holds other data under the same names, or, unless `overwrite`, a finished corpus."""
    for split in ("dev_matched", "dev_mismatched", "train"):
        path = folder / f"{split}.tsv"
        if path.exists() and not _is_ours(path, split):
            raise InputError(f"--output_dir {folder}: {path.name} was not generated here; give another folder")
    refuse_finished(folder, "train.tsv", overwrite)


def _is_ours(path: Path, split: str) -> bool:
    """Whether this generator wrote the file: its first pair has the ids 0, 0 and <split>0, unlike any of MNLI."""
    with open(path, "rb") as file:
        header, first = file.readline(1000), file.readline(100)
    return header.startswith(b"index\tpromptID\tpairID\t") and first.startswith(f"0\t0\t{split}0\t".encode())


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 0.3:
        raise ValueError
    return value


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="demo.generate")
    parser.add_argument("--output_dir", required=True, help="folder for the three TSV files")
    parser.add_argument("--num_train", type=positive_int, default=20_000, help="training pairs")
    parser.add_argument("--num_dev", type=positive_int, default=1_000, help="pairs of each dev set")
    parser.add_argument(
        "--counter_share",
        type=share,
        default=0.02,
        help="share of training pairs that contradict the shortcut, 0 to 0.3",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="other seeds give other pairs")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace an earlier corpus of this script")
    args = parse_args(parser, argv)
    with folder_lock(args.output_dir):
        refuse_used(Path(args.output_dir), args.overwrite_output_dir)
        generate(
            args.output_dir,
            num_train=args.num_train,
            num_dev=args.num_dev,
            counter_share=args.counter_share,
            seed=args.seed,
        )
    print(
        f"{args.num_train} training pairs, {round(args.counter_share * args.num_train)} of them counter-examples, and two dev sets of {args.num_dev} in {args.output_dir}"
    )


if __name__ == "__main__":
    run_script(main)
