"""The default splitter: sentences by syntok, words and noun phrases by TextBlob's lexicon and rules; no download."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from tavq.text.corrections import correct_tags
from tavq.text.granularity import MAX_WORD, Splitter, Units, distinct, splitters
from tavq.text.tagging import load_tagger
from tavq.text.vocabulary import COLOURISH, FUNCTION, HEADS, QUANTIFIERS, SCAFFOLD, UNSEEN

# Finer than TextBlob's tokens where captions need it (clitics with either apostrophe), coarser than syntok's where the
# lexicon has the compound ("high-angle"). Abbreviations keep their inner dots, so that syntok sees the last one.
TOKENS = re.compile(
    r"\d+(?:[.,:/]\d+)+"
    r"|(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])"
    r"|[^\W_]+(?:['’´][^\W_]+)*(?:[-‐‑][^\W_]+(?:['’´][^\W_]+)*)*"
    r"|([^\w\s.])\1{3,}|\.\.\.|\S"
)
CLITIC = re.compile(r"(?<=.)(?:n['’´]t|['’´](?:s|re|ve|ll|d|m|t))$", re.IGNORECASE)
APOSTROPHE = re.compile("['’´]")
PLAIN_PARAGRAPH = re.compile(r"[\w\s,'’-]*[.!?]?\s*")
"""A paragraph in which only the last character can end a sentence, as in most captions; syntok is then not needed."""

PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")

TRAILING = frozenset(("etc", "st", "ave", "rd", "blvd", "ft", "lbs", "a.m", "p.m", "jr", "inc", "co"))
"""Abbreviations that are followed by a new sentence more often than by a name."""

# One letter per token, so that a noun phrase is a regular expression over the sentence.
TOKEN_CLASSES = {
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
    """About 3,000 captions of sixty words per second and core; tests/golden/test_splitting.py has its accuracy."""

    version = "2"

    def split(self, text: str) -> Units:
        words: list[str] = []
        phrases: list[str] = []
        sentences: list[str] = []
        for spans in sentence_spans(text):
            tokens = [text[start:end] for start, end in spans]
            if not any(token[0].isalnum() for token in tokens):
                continue
            sentences.append(normalize_spaces(text[spans[0][0] : spans[-1][1]]))
            visible, grouped = find_chunks(tokens)
            words += (tokens[index].lower() for index in visible)
            phrases += (normalize_spaces(text[spans[begin][0] : spans[end - 1][1]]).lower() for begin, end in grouped)
        return Units(distinct(words), distinct(phrases), distinct(sentences))


def normalize_spaces(text: str) -> str:
    """The text with every run of white space replaced by one space."""
    return " ".join(text.split())


def sentence_spans(text: str) -> Iterator[list[tuple[int, int]]]:
    """Yield for each sentence the start and end of its tokens in the text."""
    breaks = [match.span() for match in PARAGRAPH.finditer(text)]
    start = 0
    for end, next_start in [*breaks, (len(text), len(text))]:
        spans = token_spans(text, start, end)
        if spans and PLAIN_PARAGRAPH.fullmatch(text, start, end):
            yield spans
        elif spans:
            yield from segment_paragraph(text, start, spans)
        start = next_start


def segment_paragraph(text: str, start: int, spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield the token spans of a paragraph that begins at `start`, by sentence as syntok finds them."""
    from syntok.segmenter import segment
    from syntok.tokenizer import Token

    ends = [start, *(end for _, end in spans)]
    tokens = [Token(text[gap:a], text[a:b], a) for gap, (a, b) in zip(ends, spans, strict=False)]
    for sentence in segment(iter(tokens)):
        begin = 0
        for index in range(2, len(sentence) - 1):
            if sentence[index].value == "." and ends_sentence(sentence[index - 1 : index + 2]):
                yield [(token.offset, token.offset + len(token.value)) for token in sentence[begin : index + 1]]
                begin = index + 1
        yield [(token.offset, token.offset + len(token.value)) for token in sentence[begin:]]


def ends_sentence(around: Sequence[Any]) -> bool:
    """Whether a dot ends a sentence although syntok takes the token before it for an abbreviation.

    `around` are the token before, the dot and the token after: "for $3.50. A", "in the U.S. The", "etc. People".
    """
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
    """Start and end of each token between two positions of the text; "dog's" and "isn't" are two tokens each."""
    spans = [match.span() for match in TOKENS.finditer(text, start, end)]
    if not APOSTROPHE.search(text, start, end):
        return spans
    return [part for span in spans for part in split_clitic(text, *span)]


def split_clitic(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A token's span, or the spans of the word and its clitic."""
    clitic = CLITIC.search(text[start:end]) if end - start > 2 else None
    return [(start, start + clitic.start()), (start + clitic.start(), end)] if clitic else [(start, end)]


def find_chunks(tokens: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Indices of the words that name something visible, and begin and end of the noun phrases, in one sentence."""
    tags = correct_tags(tokens, load_tagger().tag(tokens))
    classes = adjust_classes(tokens, "".join(map(classify_token, tokens, tags)))
    is_usable = [*map(is_word, tokens)]
    visible = [kind in "NJLCQ" and usable for kind, usable in zip(classes, is_usable, strict=True)]
    phrases = []
    for match in NOUN_PHRASE.finditer(classes):
        begin, end = match.span()
        if end - begin == 1:
            continue
        # Participles count inside a noun phrase only.
        visible[begin:end] = [visible[i] or (is_usable[i] and classes[i] in "PG") for i in range(begin, end)]
        while begin < end and classes[begin] in "NJ" and tokens[begin].lower() in UNSEEN:
            begin += 1
        if sum(visible[begin:end]) > 1 and is_word(tokens[end - 1], scaffold=True):
            phrases.append((begin, end))
    return [index for index, word in enumerate(visible) if word], phrases


def adjust_classes(tokens: Sequence[str], classes: str) -> str:
    """The token classes corrected by their neighbours: "a traffic light", "Route 66", "St. Mary"."""
    if "L" not in classes and "NC" not in classes and "." not in tokens[1:-1]:
        return classes
    adjusted = [*classes]
    for index, kind in enumerate(classes):
        before, after = classes[index - 1 : index], classes[index + 1 : index + 2]
        previous = tokens[index - 1] if index else ""
        if kind == "L" and after not in tuple("JLN") and (tokens[index].lower() in HEADS or before == "N"):
            adjusted[index] = "N"
        elif kind == "C" and before == "N" and tokens[index].isdigit() and after not in tuple("NJLPQC"):
            adjusted[index] = "N" if previous[0].isupper() or previous == "number" else "C"
        elif tokens[index] == "." and before == after == "N" and (previous.istitle() or "." in previous):
            is_abbreviation = (len(previous) < 5 and tokens[index + 1][0].isupper()) or "." in previous
            adjusted[index] = "T" if is_abbreviation else "-"
    return "".join(adjusted)


@lru_cache(maxsize=65536)
def is_word(token: str, scaffold: bool = False) -> bool:
    """Whether a token can name something visible; `scaffold` also accepts words for the image itself."""
    lower = token.lower()
    return (
        token[0].isalnum()
        and len(token) <= MAX_WORD
        and lower not in UNSEEN
        and (scaffold or lower not in SCAFFOLD)
        and (len(token) > 1 or token.isdigit())
    )


@lru_cache(maxsize=65536)
def classify_token(token: str, tag: str) -> str:
    """The token's class in a noun phrase: Q quantifier, L noun that shades a colour, Y adverb in -ly, - none."""
    lower = token.lower()
    if lower in QUANTIFIERS and tag[:2] in ("JJ", "DT", "PD", "NN", "RB", "CD"):
        return "Q"
    kind = TOKEN_CLASSES.get(tag, "-")
    if kind in "NJCPG" and (lower in FUNCTION or not token[0].isalnum()):
        return "-"
    if kind == "R" and lower.endswith("ly") and lower not in FUNCTION:
        return "Y"
    return "L" if kind == "N" and lower in COLOURISH else kind
