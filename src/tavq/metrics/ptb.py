"""Captions split into words as coco-caption splits them, on which every published caption score depends.

coco-caption runs the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1 (Java) on lowered text and drops the tokens of
a fixed list of punctuation. The rules here are an implementation of its behaviour, and give the same words for
67,043 of the 67,046 different captions of COCO val2017, Flickr8k and UCM (the other three are the case below) and for
53,697 of 53,704 sentences of long descriptions.

Differs from the tool: it reads all captions as one text, so that the first word of the next caption can decide whether
a single letter at the end keeps its full stop; here captions are split one by one. Markup, telephone numbers, smileys
and rare abbreviations are not known here.
"""

import re

NAME = "tavq-ptb-1"
"""Name of these rules in results; it changes with every change that can affect a word."""

DROPPED = frozenset({"'", "''", "`", "``", ".", "?", "!", ",", ":", ";", "-", "--", "..."})
"""Punctuation that is left out. coco-caption's list also has round and curly brackets, in upper case, but its tokenizer
writes them in lower case: `-lrb-` stays a word in every published score."""

SPELLED = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "\u00bc": "1/4",
    "\u00bd": "1/2",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\u00a2": "cents",
    "\u00a3": "#",
    "\u00a4": "$",
    "\u20ac": "$",
    "\u2026": "...",
    "....": "...",
    ".....": "...",
    "---": "--",
    "----": "--",
    **{f"\u2019{end}": f"'{end}" for end in ("s", "m", "d", "re", "ve", "ll")},
    "n\u2019t": "n't",
    **dict.fromkeys("\u2013\u2014\u2015", "--"),
    **dict.fromkeys('"\u201c\u201d\u00ab\u00bb\u2018\u2019\u201a\u201b\u201e\u201f\u2039\u203a', "''"),
}
"""Tokens that are written in another way."""

TWO = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "'tis": "'t is",
    "'twas": "'t was",
}
"""Two words written as one."""

ABBREVIATIONS = """
    mr mrs ms dr prof rev gen col capt lt sgt maj gov sen rep pres st ste mt ft ave blvd rd dept assn bldg
    jr sr bros esq ph.d inc co corp ltd plc univ intl natl etc vs al est ext tel sq
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    ala ariz calif colo conn fla ga ind kan ky md mich minn mo mont neb nev okla penn tenn va vt wis wyo
"""
"""Words that keep their full stop, besides single letters and letters with stops between them (u.s.)."""

CAPITALISED = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"
"""Words that keep it where they start with a capital."""

OPENERS = """
    A About After An As At But He Her Here However If In It Many More Now One Other Our She Since So Some Such That The
    Their Then There These They This We What When While You
"""
"""Words before which a single letter and a full stop end a sentence: "vitamin C. The"."""

PLAIN = re.compile(r"([a-z]+)(?: +|$)", re.IGNORECASE)  # most of every caption; the shapes are slow

L = r"[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be]"  # a letter
A = rf"(?:{L}|\d)"
Q = r"['\u2019]"
DOTTED = rf"{L}{A}*(?:[.!?]{L}{A}*)*"  # a stop without a space after it does not part words
SHORT = r"[a-z0-9]+(?:-[a-z]+){0,2}"


def _any(words: str) -> str:
    return "|".join(map(re.escape, words.split()))


SHAPES = [
    re.compile(shape, re.IGNORECASE)
    for shape in (
        rf"({'|'.join(TWO)})",
        rf"({DOTTED}){Q}(?:[smd]|re|ve|ll)",  # what follows is a word of its own: man 's, they 're
        rf"([a-z]*[a-mo-z])n{Q}t",  # do n't, ca n't
        rf"({DOTTED})",
        rf"({Q}(?:[smd]|re|ve|ll|em|till?|cause|\d0s|n{Q}?)|n{Q}t)(?![a-z])",
        rf"({Q}\d\d)(?!\S)",
        rf"({L}+[aeiouy]{Q}[aeiou]{L}*|[dlo]{Q}{A}+|y{Q}(?={L}))",  # Hawai'i, d'oeuvre, o'clock, y'all
        rf"((?-i:[A-Z]){Q}{L}{{2,}})",  # O'Brien
        rf"({A}+(?:[-_]{A}+)*)",
        r"([a-z0-9][a-z0-9.,]*(?:-[a-z0-9]+)+)",  # red,white-striped
        r"([-+]?(?:\d*(?:[.:,]\d+)+|\d+))",
        r"((?:\d{1,4}[- ])?\d{1,4}/\d{1,4}|\d\d?[-/]\d\d?[-/]\d{2,4})",  # 22 3/4, 1/2/2009
        rf"({SHORT}(?:/{SHORT}){{1,2}})",  # and/or
        rf"((?:[a-z](?:\.[a-z])*|{_any(ABBREVIATIONS)})\.)",
        rf"((?-i:{_any(CAPITALISED)})\.)",
        rf"([a-z])\. (?-i:{_any(OPENERS)}) ",
        r"((?:nos?|figs?|pp|ca)\.) ?\d",
        rf"({L}{A}*\.)[,;:]",
        r"((?-i:[A-Z]+(?:&[A-Z]+)+))",  # AT&T
        rf"(@[a-z_]\w*|\#{L}+|\w\S{{0,99}}@\S*\w|(?:https?://|www\.)\S*[\w/])",
        r"([a-z]*\$)",
        r"(-+|[?!]+|\#+|@+|\*+|_+|\.{3,5}|<<|>>|''|[!-\u1fff\u2010-\u2bff])",
    )
]


def tokenize(caption: str) -> str:
    """The words of a caption in lower case, separated by single spaces; "" for a caption without words."""
    caption = " ".join(caption.split())
    words: list[str] = []
    place = 0
    while place < len(caption):
        plain = PLAIN.match(caption, place)
        token, place = (plain[1], plain.end()) if plain else _longest(caption, place)
        word = SPELLED.get(token.lower(), token.lower())
        if word not in DROPPED:
            words += TWO.get(word, word).split(" ")
    return " ".join(words)


def _longest(caption: str, place: int) -> tuple[str, int]:
    """The token at a position by the pattern with the longest match, and its end; "." where no pattern matches.

    A pattern's first group is the token; a longer match only decides which pattern wins.
    """
    found = [match for shape in SHAPES if (match := shape.match(caption, place))]
    if not found:
        return ".", place + 1
    best = max(found, key=lambda match: match.end())  # of equal ones the first
    return best[1].replace(" ", "\u00a0"), best.end(1)
