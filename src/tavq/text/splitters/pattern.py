"""Sentences by syntok, words and noun phrases from TextBlob's lexicon and rules: needs no download."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tavq.text.granularity import MAX_WORD, Splitter, Units, distinct, splitters
from tavq.text.tagging import load_tagger
from tavq.text.vocabulary import ACTIONS, BASES, COLOURISH, FUNCTION, QUANTIFIERS, SCAFFOLD, UNSEEN

# Finer than TextBlob's tokens where captions need it (clitics with either apostrophe), coarser than syntok's where
# the lexicon wants the whole ("high-angle"). Abbreviations keep their inner dots, so that syntok sees the last one.
TOKENS = re.compile(
    r"\d+(?:[.,:/]\d+)+"
    r"|(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])"
    r"|[^\W_]+(?:['’´][^\W_]+)*(?:[-‐‑][^\W_]+(?:['’´][^\W_]+)*)*"
    r"|([^\w\s.])\1{3,}|\.\.\.|\S"
)
CLITIC = re.compile(r"(?<=.)(?:n['’´]t|['’´](?:s|re|ve|ll|d|m|t))$", re.IGNORECASE)
PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")

# One letter a token, so that a noun phrase is a regular expression over the sentence.
LETTERS = {
    **dict.fromkeys(("NN", "NNS", "NNP", "NNPS"), "N"),
    **dict.fromkeys(("JJ", "JJR", "JJS"), "J"),
    **dict.fromkeys(("DT", "PDT", "PRP$"), "D"),
    **dict(zip(("CD", "VBN", "VBG", "CC", "POS", ",", "RB"), "CPGAS,R", strict=True)),
}
FINITE = frozenset(("VBZ", "VBP", "VBD", "MD"))
NOUN_PHRASE = re.compile(
    r"[QC]*"  # two, several
    r"(?:(?<=[DJCQ])R(?=[JP])"  # brightly coloured
    r"|(?<=[DJCQ])G(?=[JN])"  # the smiling woman
    r"|[JLP](?:(?:,|A|,A)(?=[JLP]+N))?"  # black and white; striped, yellow
    r"|N+S"  # woman's
    r")*N+"
)


@splitters.register("pattern")
class PatternSplitter(Splitter):
    """About 2,000 captions of sixty words a second on one core."""

    version = "1"

    def split(self, text: str) -> Units:
        words: list[str] = []
        phrases: list[str] = []
        sentences: list[str] = []
        for spans in sentence_spans(text):
            tokens = [text[start:end] for start, end in spans]
            if not any(token[0].isalnum() for token in tokens):
                continue
            sentences.append(flat(text[spans[0][0] : spans[-1][1]]))
            seen, grouped = chunks(tokens)
            words += (tokens[index].lower() for index in seen)
            phrases += (flat(text[spans[begin][0] : spans[end - 1][1]]).lower() for begin, end in grouped)
        return Units(distinct(words), distinct(phrases), distinct(sentences))


def flat(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def sentence_spans(text: str) -> Iterator[list[tuple[int, int]]]:
    """For each sentence, the start and end of its tokens in the text."""
    from syntok.segmenter import segment
    from syntok.tokenizer import Token

    start = 0
    for end, following in [*(match.span() for match in PARAGRAPH.finditer(text)), (len(text), len(text))]:
        spans = list(token_spans(text, start, end))
        before = [start, *(stop for _, stop in spans)]
        tokens = [Token(text[gap:a], text[a:b], a) for gap, (a, b) in zip(before, spans, strict=False)]
        for sentence in segment(iter(tokens)):
            yield [(token.offset, token.offset + len(token.value)) for token in sentence]
        start = following


def token_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each token between two places of the text; "dog's" and "isn't" are two each."""
    for match in TOKENS.finditer(text, start, end):
        a, b = match.span()
        clitic = CLITIC.search(match.group()) if b - a > 2 and not match.group().isalnum() else None
        if clitic:
            yield a, a + clitic.start()
            a += clitic.start()
        yield a, b


def chunks(tokens: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the words that can be seen, and begin and end of the noun phrases, in one sentence."""
    tags = repaired(tokens, load_tagger().tag(tokens))
    letters = "".join(map(letter, tokens, tags))
    seen = [index for index, kind in enumerate(letters) if kind in "NJLCQ" and is_word(tokens[index])]
    phrases = []
    attributive = []
    for match in NOUN_PHRASE.finditer(letters):
        begin, end = match.span()
        inside = range(begin, end)
        attributive += [index for index in inside if letters[index] in "PG" and is_word(tokens[index])]
        telling = [index for index in inside if letters[index] in "NJLCQPG" and is_word(tokens[index])]
        if end - begin > 1 and len(telling) > 1 and is_word(tokens[end - 1], scaffold=True):
            phrases.append((begin, end))
    return sorted({*seen, *attributive}), phrases


def is_word(token: str, scaffold: bool = False) -> bool:
    """Whether a token of a fitting tag can be seen; `scaffold` lets the words for the picture itself through."""
    lower = token.lower()
    return (
        token[0].isalnum()
        and len(token) <= MAX_WORD
        and lower not in UNSEEN
        and (scaffold or lower not in SCAFFOLD)
        and (len(token) > 1 or token.isdigit())
    )


def letter(token: str, tag: str) -> str:
    """The token's part in a noun phrase; Q a quantifier, L a noun that shades a colour, - anything else."""
    lower = token.lower()
    if lower in QUANTIFIERS and tag[:2] in ("JJ", "DT", "PD", "NN", "RB", "CD"):
        return "Q"
    kind = LETTERS.get(tag, "-")
    if kind in "NJCPG" and (lower in FUNCTION or not token[0].isalnum()):
        return "-"
    return "L" if kind == "N" and lower in COLOURISH else kind


def repaired(tokens: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The tags after corrections for what the tagger, made from news text, gets wrong in captions."""
    fixed = [*tags]
    clause = not FINITE.isdisjoint(tags)
    for index, tag in enumerate(tags):
        correct = CORRECTIONS.get(tag)
        if correct:
            before = fixed[index - 1] if index else ""
            after = tags[index + 1] if index + 1 < len(tags) else "."
            previous = tokens[index - 1].lower() if index else ""
            fixed[index] = correct(Place(tag, tokens[index], previous, before, after, clause))
    return fixed


class Place(NamedTuple):
    """A token whose tag is in doubt, and what stands around it."""

    tag: str
    token: str
    previous: str
    before: str  # tag of the previous token
    after: str  # tag of the next token
    clause: bool  # whether the sentence has a finite verb


def plural_noun(place: Place) -> str:
    """NNS or VBZ: "the image features", "a man rides his bicycle", "a dog leaps over a log"."""
    follows = place.before in ("NN", "NNP", "NNS")
    takes_object = place.after in ("DT", "PRP$", "PRP")
    acts = not place.clause and place.after in ("IN", "TO", "RB") and place.token.lower() in ACTIONS
    return "VBZ" if follows and (place.previous in SCAFFOLD or takes_object or acts) else "NNS"


def noun(place: Place) -> str:
    """NN, VBG or VB: "in a black top sitting on a chair", "two dogs run along the grass"."""
    if place.after not in ("IN", "DT", "PRP$", "PRP", "TO", "RB") or place.before in ("", "DT", "PRP$", "IN"):
        return "NN"
    if place.token.endswith("ing") and load_tagger().lexical(place.token) == "VBG":
        return "VBG"
    return "VB" if not place.clause and place.token in BASES else "NN"


def participle(place: Place) -> str:
    """VBN, VBD, VB or VBP as NN ("a set of stairs", "on the left.") or VBN ("with curled tips")."""
    if place.before in ("DT", "PRP$", "JJ") and place.after in ("IN", ".", ",", "CC"):
        return "NN"
    attributive = place.before in ("DT", "PRP$", "JJ", "IN") and place.after in ("NN", "NNS", "JJ")
    return "VBN" if attributive and place.tag == "VBD" else place.tag


def gerund(place: Place) -> str:
    """VBG only where the word ends so: the rules make "football" one."""
    return "VBG" if place.token.lower().endswith("ing") else "NN"


def adverb(place: Place) -> str:
    """RB, or what the lexicon says where that is an adjective or a noun: the rules make "dark" an adverb."""
    known = load_tagger().lexical(place.token)
    return known if known in ("JJ", "NN") else "RB"


CORRECTIONS: dict[str, Callable[[Place], str]] = {
    "NNS": plural_noun,
    "NN": noun,
    "VBG": gerund,
    "RB": adverb,
    "VBD": participle,
    "VBN": participle,
    "VB": participle,
    "VBP": participle,
}
