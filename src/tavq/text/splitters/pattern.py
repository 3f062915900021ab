"""Sentences by syntok, words and noun phrases from TextBlob's lexicon and rules: needs no download."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from tavq.text.corrections import repaired
from tavq.text.granularity import MAX_WORD, Splitter, Units, distinct, splitters
from tavq.text.tagging import load_tagger
from tavq.text.vocabulary import COLOURISH, FUNCTION, HEADS, QUANTIFIERS, SCAFFOLD, UNSEEN

# Finer than TextBlob's tokens where captions need it (clitics with either apostrophe), coarser than syntok's where
# the lexicon wants the whole ("high-angle"). Abbreviations keep their inner dots, so that syntok sees the last one.
TOKENS = re.compile(
    r"\d+(?:[.,:/]\d+)+"
    r"|(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])"
    r"|[^\W_]+(?:['’´][^\W_]+)*(?:[-‐‑][^\W_]+(?:['’´][^\W_]+)*)*"
    r"|([^\w\s.])\1{3,}|\.\.\.|\S"
)
CLITIC = re.compile(r"(?<=.)(?:n['’´]t|['’´](?:s|re|ve|ll|d|m|t))$", re.IGNORECASE)
APOSTROPHE = re.compile("['’´]")
PLAIN = re.compile(r"[\w\s,'’-]*[.!?]?\s*")
"""A paragraph in which nothing but its last character can end a sentence: most captions."""

PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")

TRAILING = frozenset(("etc", "st", "ave", "rd", "blvd", "ft", "lbs", "a.m", "p.m", "jr", "inc", "co"))
"""Abbreviations that end a sentence more often than they stand before a capital."""

# One letter a token, so that a noun phrase is a regular expression over the sentence.
LETTERS = {
    **dict.fromkeys(("NN", "NNS", "NNP", "NNPS"), "N"),
    **dict.fromkeys(("JJ", "JJR", "JJS"), "J"),
    **dict.fromkeys(("DT", "PDT", "PRP$"), "D"),
    **dict(zip(("CD", "VBN", "VBG", "CC", "POS", ",", "RB"), "CPGAS,R", strict=True)),
}
NOUN_PHRASE = re.compile(
    r"[QC]*"  # two, several
    r"(?:(?<=[DJCQ])R(?=[JP])"  # very tall
    r"|(?<![NSGP])Y(?=[JP])"  # brightly coloured
    r"|(?<=[DJCQ])G(?=[JN])"  # the smiling woman
    r"|[JLP](?:(?:,|A|,A)(?=[JLP]+(?:(?:,A?|A)[JLP]+){0,3}N))?"  # black and white; striped, yellow
    r"|N(?:T?N)*S"  # woman's
    r")*N(?:T?N)*"  # St. Mary
)


@splitters.register("pattern")
class PatternSplitter(Splitter):
    """About 3,000 captions of sixty words a second on one core; tests/golden/test_splitting.py says how well."""

    version = "2"

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
    start = 0
    for end, following in [*(match.span() for match in PARAGRAPH.finditer(text)), (len(text), len(text))]:
        spans = token_spans(text, start, end)
        if spans and PLAIN.fullmatch(text, start, end):
            yield spans
        elif spans:
            yield from segmented(text, start, spans)
        start = following


def segmented(text: str, start: int, spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The spans of a paragraph that begins at `start`, by sentence as syntok finds them."""
    from syntok.segmenter import segment
    from syntok.tokenizer import Token

    before = [start, *(end for _, end in spans)]
    tokens = [Token(text[gap:a], text[a:b], a) for gap, (a, b) in zip(before, spans, strict=False)]
    for sentence in segment(iter(tokens)):
        begin = 0
        for place in range(2, len(sentence) - 1):
            if sentence[place].value == "." and ends_sentence(sentence[place - 1 : place + 2]):
                yield [(token.offset, token.offset + len(token.value)) for token in sentence[begin : place + 1]]
                begin = place + 1
        yield [(token.offset, token.offset + len(token.value)) for token in sentence[begin:]]


def ends_sentence(around: Sequence[Any]) -> bool:
    """Whether the dot in the middle of three tokens ends a sentence, though syntok reads what is before it as an
    abbreviation: "for $3.50. A", "in the U.S. The", "etc. People"."""
    before, dot, after = around
    if dot.spacing or not after.spacing or not after.value[0].isupper():
        return False
    lower = after.value.lower()
    opens = lower in FUNCTION and len(lower) > 1
    if before.value[0].isdigit():
        return opens or any(sign in before.value for sign in ".,:/")
    starts = opens or load_tagger().lexicon.get(lower) == "NNS"
    return starts if before.value.lower() in TRAILING else opens and "." in before.value


def token_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Start and end of each token between two places of the text; "dog's" and "isn't" are two each."""
    spans = [match.span() for match in TOKENS.finditer(text, start, end)]
    return [part for span in spans for part in parted(text, *span)] if APOSTROPHE.search(text, start, end) else spans


def parted(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A token's span, or those of the word and its clitic."""
    clitic = CLITIC.search(text[start:end]) if end - start > 2 else None
    return [(start, start + clitic.start()), (start + clitic.start(), end)] if clitic else [(start, end)]


def chunks(tokens: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the words that can be seen, and begin and end of the noun phrases, in one sentence."""
    tags = repaired(tokens, load_tagger().tag(tokens))
    letters = joined(tokens, "".join(map(letter, tokens, tags)))
    able = [*map(is_word, tokens)]
    seen = [kind in "NJLCQ" and word for kind, word in zip(letters, able, strict=True)]
    phrases = []
    for match in NOUN_PHRASE.finditer(letters):
        begin, end = match.span()
        if end - begin == 1:
            continue
        seen[begin:end] = [seen[i] or (able[i] and letters[i] in "PG") for i in range(begin, end)]
        while begin < end and letters[begin] in "NJ" and tokens[begin].lower() in UNSEEN:
            begin += 1
        if sum(seen[begin:end]) > 1 and is_word(tokens[end - 1], scaffold=True):
            phrases.append((begin, end))
    return [index for index, word in enumerate(seen) if word], phrases


def joined(tokens: Sequence[str], letters: str) -> str:
    """The letters after a look at their neighbours: "a traffic light", "Route 66", "St. Mary"."""
    if "L" not in letters and "NC" not in letters and "." not in tokens[1:-1]:
        return letters
    kinds = [*letters]
    for index, kind in enumerate(letters):
        before, after = letters[index - 1 : index], letters[index + 1 : index + 2]
        previous = tokens[index - 1] if index else ""
        if kind == "L" and after not in tuple("JLN") and (tokens[index].lower() in HEADS or before == "N"):
            kinds[index] = "N"
        elif kind == "C" and before == "N" and tokens[index].isdigit() and after not in tuple("NJLPQC"):
            kinds[index] = "N" if previous[0].isupper() or previous == "number" else "C"
        elif tokens[index] == "." and before == after == "N" and (previous.istitle() or "." in previous):
            kinds[index] = "T" if (len(previous) < 5 and tokens[index + 1][0].isupper()) or "." in previous else "-"
    return "".join(kinds)


@lru_cache(maxsize=65536)
def is_word(token: str, scaffold: bool = False) -> bool:
    """Whether a token of a fitting tag can be seen; `scaffold` lets the words for the image itself through."""
    lower = token.lower()
    return (
        token[0].isalnum()
        and len(token) <= MAX_WORD
        and lower not in UNSEEN
        and (scaffold or lower not in SCAFFOLD)
        and (len(token) > 1 or token.isdigit())
    )


@lru_cache(maxsize=65536)
def letter(token: str, tag: str) -> str:
    """The token's part in a noun phrase: Q a quantifier, L a noun that shades a colour, Y an adverb in -ly, - none."""
    lower = token.lower()
    if lower in QUANTIFIERS and tag[:2] in ("JJ", "DT", "PD", "NN", "RB", "CD"):
        return "Q"
    kind = LETTERS.get(tag, "-")
    if kind in "NJCPG" and (lower in FUNCTION or not token[0].isalnum()):
        return "-"
    if kind == "R" and lower.endswith("ly") and lower not in FUNCTION:
        return "Y"
    return "L" if kind == "N" and lower in COLOURISH else kind
