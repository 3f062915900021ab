"""What the tagger, made from news text, gets wrong in captions, put right word by word."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tavq.text.tagging import load_tagger
from tavq.text.vocabulary import (
    ACTIONS,
    BASES,
    COLOURS,
    FUNCTION,
    OPENERS,
    PRONOMINAL,
    SCAFFOLD,
    SHOWS,
    STAYING,
)

NOUN = frozenset(("NN", "NNS", "NNP", "NNPS"))
FINITE = frozenset(("VBZ", "VBP", "VBD", "MD"))
NOMINAL = frozenset((*NOUN, "JJ", "JJR", "JJS", "VBN"))
OBJECT = frozenset(("DT", "PRP$", "PRP"))
SHOWN = frozenset(("JJ", "CD", "NN", "NNS", "VBG", "VBN", '"', "``", "''"))
CLOSED = frozenset(("IN", "DT", "PRP", "PRP$", "TO", "CC", "MD", "WP", "WRB", "EX", "RB", "VBZ", "VBP", "VBD"))
QUOTES = frozenset("\"'“”‘’«»")


class Place(NamedTuple):
    """A token whose tag is in doubt; tags to its left are right already."""

    tokens: Sequence[str]
    tags: Sequence[str]
    at: int

    @property
    def token(self) -> str:
        return self.tokens[self.at]

    @property
    def tag(self) -> str:
        return self.tags[self.at]

    @property
    def previous(self) -> str:
        return self.tokens[self.at - 1].lower() if self.at else ""

    @property
    def following(self) -> str:
        return self.tokens[self.at + 1].lower() if self.at + 1 < len(self.tokens) else "."

    @property
    def before(self) -> str:
        return self.tags[self.at - 1] if self.at else ""

    @property
    def after(self) -> str:
        return self.tags[self.at + 1] if self.at + 1 < len(self.tags) else "."

    def without_verb(self) -> bool:
        """Whether the clause has no finite verb, so that this may be it."""
        start = end = self.at
        while start and not opens_clause(self.tokens, self.tags, start):
            start -= 1
        while end + 1 < len(self.tags) and not opens_clause(self.tokens, self.tags, end + 1):
            end += 1
        return FINITE.isdisjoint(self.tags[start : end + 1])


def opens_clause(tokens: Sequence[str], tags: Sequence[str], index: int) -> bool:
    """ "while", "who", a semicolon; "and", "but" where a new subject may follow."""
    if tags[index] == "CC":
        return index + 1 < len(tags) and tags[index + 1] in ("DT", "PRP$", "PRP")
    return tokens[index].lower() in OPENERS


def repaired(tokens: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The tags of one sentence after the corrections, from left to right."""
    found = [*map(restored, tokens, tags)]
    fixed = [tag for tag, _ in found]
    for index, (_, correct) in enumerate(found):
        if correct is not None:
            fixed[index] = correct(Place(tokens, fixed, index))
    return fixed


@lru_cache(maxsize=65536)
def restored(token: str, tag: str) -> tuple[str, Callable[[Place], str] | None]:
    """The tag, or the lexicon's where the rules made something else of a function word ("of", "near") or a number; and
    what is to correct it where it stands."""
    lower = token.lower()
    if token.isdigit():
        tag = "CD"
    elif lower in ("'s", "’s") and tag != "VBZ":
        tag = "POS"
    elif lower in FUNCTION and tag not in CLOSED and (tag != "WDT" or lower != "that"):
        known = load_tagger().lexical(lower)
        tag = known if known in CLOSED else tag
    return tag, WORDS.get(lower) or (CORRECTIONS.get(tag) if doubtful(token, tag) else None)


def doubtful(token: str, tag: str) -> bool:
    """Whether the correction for the tag could ever change it for this token; asked once a token, which saves time."""
    tagger, lower = load_tagger(), token.lower()
    known = tagger.lexical(token)
    if tag == "NN":
        return token in COLOURS or token in BASES or known in ("JJ", "VBG") or conjugates(token)
    if tag == "JJ":
        return "-" in lower or tagger.lexical(lower) != "JJ" or tagger.lexicon.get(lower) is None
    if tag == "VBZ":
        return lower not in FUNCTION and lower.endswith("s")
    return known in ("JJ", "NN") if tag == "RB" else True


@lru_cache(maxsize=65536)
def conjugates(base: str) -> bool:
    """Whether the lexicon knows the word as a verb by one of its forms: "line" by "lining" or "lined"."""
    lexicon = load_tagger().lexicon
    stem = base.removesuffix("e")
    borrowed = stem == base and lexicon.get(f"{base}e") is not None  # "caring" is of "care", not of "car"
    own = lexicon.get(f"{stem}ing") == "VBG" or lexicon.get(f"{stem}ed") in ("VBN", "VBD")
    doubled = lexicon.get(f"{base}{base[-1:]}ing") == "VBG"
    return lexicon.get(base) == "VB" or doubled or (own and not borrowed)


def plural_noun(place: Place) -> str:
    """NNS or VBZ: "the image features", "a man rides his bicycle", "a dog leaps over a log"."""
    if place.before not in NOUN:
        return "NNS"
    lower, after = place.token.lower(), place.after
    takes = after in OBJECT and place.following not in ("all", "each")
    if place.previous in SCAFFOLD or takes or (lower in SHOWS and after in SHOWN):
        return "VBZ"
    acts = lower in ACTIONS and after in ("IN", "TO", "RB", "RP", ".", ",", "VBG")
    return "VBZ" if acts and place.without_verb() else "NNS"


def noun(place: Place) -> str:
    """NN, JJ, VBG or a verb: "dark green", "in a black top sitting on a chair", "trees line the street"."""
    token, before, after = place.token, place.before, place.after
    if token in COLOURS or (after == "," and before == "DT" and load_tagger().lexical(token) == "JJ"):
        return "JJ"
    if before == "NNS" and after in ("DT", "PRP$", "PRP", "JJ", "CD", "RB") and token.islower() and conjugates(token):
        return "VBP"
    if after not in ("IN", "DT", "PRP$", "PRP", "TO", "RB", "RP") or before in ("", "DT", "PRP$", "IN"):
        return "NN"
    if token.endswith("ing") and load_tagger().lexical(token) == "VBG":
        return "VBG"
    return "VB" if token in BASES and place.without_verb() else "NN"


def third_person(place: Place) -> str:
    """VBZ, or NNS where no verb can stand: "the leaves", "two sinks", "yellow leaves float"."""
    lower = place.token.lower()
    counted = place.before == "CD" and place.previous != "one" and not place.previous.isdigit()
    told = place.following in ("all", "both", "each") and place.before != "PRP"
    owned = place.previous in ("the", "these", "those") or place.before == "PRP$"
    alone = place.after in FINITE or place.after in (".", ",") or lower == "leaves"
    described = place.before == "JJ" and alone and lower not in SHOWS and place.after not in OBJECT
    return "NNS" if counted or owned or described or told else "VBZ"


def participle(place: Place) -> str:
    """VBN, VBD, VB or VBP as NN ("a set of stairs", "the word 'STOP'") or VBN ("with curled tips")."""
    if place.previous in QUOTES and place.following in QUOTES:
        return "NN"
    if place.tag in ("VB", "VBP") and place.before in ("NNS", "IN") and load_tagger().lexical(place.token) == "NN":
        acts = place.before == "NNS" and conjugates(place.token) and place.previous != "sports"
        return place.tag if acts else "NN"
    before, after, regular = place.before, place.after, is_regular(place.token.lower())
    if place.tag == "VBD" and not before:
        return "VBN" if regular else "NN"
    headed = after in ("IN", ".", ",", "CC", "POS") or (before == "DT" and after in FINITE)
    if before in ("DT", "PRP$", "JJ") and headed and not regular:
        return "NN"
    listed = after == "," and before in ("DT", "PRP$", "JJ") and regular
    attributive = listed or (before in ("DT", "PRP$", "JJ", "IN") and after in ("NN", "NNS", "JJ"))
    coordinated = before == "CC" and after == "NN" and regular
    return "VBN" if place.tag == "VBD" and (attributive or coordinated) else place.tag


@lru_cache(maxsize=65536)
def is_regular(participle: str) -> bool:
    """Whether the word is a known verb with -ed ("adorned"), so that it is no noun; "sled" and "set" may be one."""
    lexicon = load_tagger().lexicon
    stem = participle.removesuffix("ed")
    bases = (stem, f"{stem}e", stem[:-1])
    return stem != participle and any(len(base) > 2 and lexicon.get(base) is not None for base in bases)


def gerund(place: Place) -> str:
    """VBG only where the word ends so: the rules make "football" and "line" one."""
    return "VBG" if place.token.lower().endswith("ing") else noun(place)


def adverb(place: Place) -> str:
    """RB, or what the lexicon says where that is an adjective or a noun: the rules make "dark" an adverb."""
    known = load_tagger().lexical(place.token)
    stays = place.token in STAYING and place.after not in NOMINAL
    return known if known in ("JJ", "NN") and not stays else "RB"


def adjective(place: Place) -> str:
    """JJ, or NN where it ends a noun phrase and is no adjective by itself: "a sink.", "a fire hydrant", "a t-shirt"."""
    token, before, after = place.token, place.before, place.after
    lower = token.lower()
    known = load_tagger().lexical(lower)
    if known == "RB" and (lower.endswith("ly") or lower == "also"):
        return "RB"
    if after in NOMINAL or before not in ("DT", "PRP$", "JJ", "CD", "NN", "NNP", "VBN", "VBG"):
        return "JJ"
    if place.previous in PRONOMINAL or lower in STAYING or (before == "VBG" and known != "VB"):
        return "JJ"
    if known == "VB" or (after not in ("CC", ",") and load_tagger().lexicon.get(lower) is None and lower.isalpha()):
        return "NN"
    last = lower.rpartition("-")[2] if "-" in lower else ""
    return "NN" if last and load_tagger().lexicon.get(last) in ("NN", "NNS") else "JJ"


def can(place: Place) -> str:
    """MD, or NN: "a trash can", "a can of soda"."""
    held = place.previous in ("a", "the", "trash", "garbage", "watering", "soda", "beer", "spray", "tin", "paint")
    return "NN" if place.following == "of" or (held and place.after not in ("VB", "PRP", "RB")) else "MD"


def back(place: Place) -> str:
    """RB, or JJ and NN: "the back door", "on its back"."""
    if place.before not in ("DT", "PRP$"):
        return "RB"
    return "JJ" if modifies(place) else "NN"


def modifies(place: Place) -> bool:
    """Whether a noun phrase goes on behind the word."""
    return place.after in NOMINAL or place.following in ("left", "right")


def ahead(place: Place) -> str:
    """RB in "in front of" and "on top of", else what it was: "the front wheel", "the top of the hill"."""
    joined = place.previous == ("in" if place.token.lower() == "front" else "on") and place.after not in NOUN
    return "RB" if joined else "JJ" if modifies(place) else "NN"


def side(place: Place) -> str:
    """NN for the side: "from left to right.", "on the left,"; else as any other word of its tag."""
    if place.before in ("IN", "TO") and place.after in ("TO", "CC", ".", ",", ":"):
        return "NN"
    if place.before == "DT" and place.following == "one":
        return "JJ"
    correct = CORRECTIONS.get(place.tag)
    return correct(place) if correct else place.tag


def one(place: Place) -> str:
    """CD, or PRP where it stands for a noun: "the right one is bare"."""
    if place.token.lower() == "ones":
        return "PRP"
    told = place.before in ("DT", "JJ", "JJR", "JJS") or place.previous in ("left", "right")
    return "PRP" if told and place.after not in NOMINAL else "CD"


WORDS: dict[str, Callable[[Place], str]] = {
    "can": can,
    "back": back,
    "front": ahead,
    "top": ahead,
    "left": side,
    "right": side,
    "one": one,
    "ones": one,
}

CORRECTIONS: dict[str, Callable[[Place], str]] = {
    "NNS": plural_noun,
    "NN": noun,
    "VBZ": third_person,
    "VBG": gerund,
    "RB": adverb,
    "JJ": adjective,
    "VBD": participle,
    "VBN": participle,
    "VB": participle,
    "VBP": participle,
}
