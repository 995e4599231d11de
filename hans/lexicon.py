"""The words of the generated corpora: challenge sets (`hans.generate`) and the demo's NLI corpus (`demo.generate`) share
them, so that a model trained on the one can be tested on the other.

Every transitive verb is regular, so its past tense is its participle ("praised", "was praised by"), and sentences are in
the past tense, so that singular and plural subjects take the same form.
"""

from dataclasses import dataclass

PEOPLE = (
    "baker farmer pilot painter nurse singer driver gardener teacher guard dancer sailor tailor poet clerk hunter miner "
    "captain editor waiter plumber barber juggler hiker"
).split()
# For the mismatched dev set of the demo: people and verbs that its training set never names.
OTHER_PEOPLE = "fiddler weaver skipper butler coach roofer potter jockey usher grocer".split()

TRANSITIVE = {  # base form -> past tense and participle
    "thank": "thanked", "follow": "followed", "greet": "greeted", "praise": "praised", "blame": "blamed",
    "watch": "watched", "hug": "hugged", "ignore": "ignored", "trust": "trusted", "visit": "visited",
    "warn": "warned", "invite": "invited", "rescue": "rescued", "chase": "chased", "amuse": "amused",
    "annoy": "annoyed",
}  # fmt: skip
OTHER_TRANSITIVE = {"punish": "punished", "tickle": "tickled", "welcome": "welcomed", "outrank": "outranked"}

INTRANSITIVE = {
    "laugh": "laughed", "wait": "waited", "smile": "smiled", "faint": "fainted", "yawn": "yawned",
    "sneeze": "sneezed", "cough": "coughed", "whistle": "whistled", "stumble": "stumbled", "nod": "nodded",
}  # fmt: skip

# Verbs that may go without their object ("the painters watched"), for garden paths.
OPTIONAL_OBJECT = ("watched", "followed", "visited", "called", "helped")
# What is done to things, and so understood when left out: "the tailor cooked the soup" / "the tailor cooked".
UNDERSTOOD = {
    "cooked": ("soup", "rice", "beans"), "baked": ("bread", "cakes", "pies"), "cleaned": ("kitchen", "stairs", "boat"),
    "painted": ("fence", "barn", "doors"), "studied": ("map", "stars", "rules"), "sewed": ("coats", "sails", "flags"),
    "juggled": ("plates", "knives", "apples"), "whispered": ("secret", "answer", "names"),
}  # fmt: skip
# Past tense and passive participle at once: "the pilot trained in the barn (laughed)".
REDUCED = ("trained", "served", "helped", "called", "paid", "moved")
PLACES = "barn market kitchen garden harbor library theater village tunnel castle".split()
OTHER_PLACES = "bakery cellar stable tavern attic".split()
PREPOSITIONS = ("near", "behind", "beside", "by", "in front of", "next to", "across from")
ADJECTIVES = "tired clever honest young famous quiet lazy brave polite busy".split()

SENTENCE_OR_OBJECT = ("believed", "doubted", "heard", "understood", "knew", "forgot")  # NP/S: take a noun or a clause
FACTIVE = ("knew", "remembered", "learned", "forgot", "regretted", "discovered")
NON_FACTIVE = ("believed", "hoped", "claimed", "thought", "said", "suspected")
TRUE_CONNECTIVES = ("because", "since", "after", "before", "although", "while", "when")
OPEN_CONNECTIVES = ("if", "unless", "in case", "whether or not")
TRUE_ADVERBS = ("clearly", "certainly", "of course", "obviously", "indeed", "undoubtedly")
OPEN_ADVERBS = ("probably", "maybe", "perhaps", "supposedly", "hopefully", "allegedly")


@dataclass(frozen=True)
class Noun:
    """A noun phrase with its number; `text` carries the article."""

    word: str
    plural: bool

    @property
    def text(self) -> str:
        return f"the {self.bare}"

    @property
    def bare(self) -> str:
        return self.word + "s" if self.plural else self.word

    @property
    def was(self) -> str:
        return "were" if self.plural else "was"


class Words:
    """Random words from one `random.Random`; nouns of one sentence are all different people."""

    def __init__(self, rng, people=PEOPLE, transitive=TRANSITIVE, places=PLACES):
        self.rng, self._people, self._transitive, self._places = rng, people, transitive, places

    def people(self, count: int) -> list[Noun]:
        return [Noun(word, self.rng.random() < 0.5) for word in self.rng.sample(self._people, count)]

    def verb(self) -> str:
        """A transitive verb in the past tense."""
        return self.base_and_past()[1]

    def base_and_past(self) -> tuple[str, str]:
        return self.rng.choice(list(self._transitive.items()))

    def two_verbs(self) -> list[str]:
        return [self._transitive[base] for base in self.rng.sample(list(self._transitive), 2)]

    def intransitive(self) -> str:
        return self.rng.choice(list(INTRANSITIVE.values()))

    def place(self) -> str:
        return self.rng.choice(self._places)

    def pick(self, words):
        return self.rng.choice(words)


def sentence(*parts: str) -> str:
    """Words to a sentence in HANS's spelling: capital first, full stop and commas set off by spaces."""
    text = " ".join(parts)
    return f"{text[0].upper()}{text[1:]} ."
