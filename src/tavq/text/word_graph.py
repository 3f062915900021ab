"""The word graph of a corpus: its adjectives and nouns with their vectors, and which adjective modifies which noun."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from tavq.core.config import Config, build
from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import check_sha256, read_json, sha256, write_json, write_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.text.encoders import EncoderRecord, TextEncoder
from tavq.text.granularity import clean
from tavq.text.splitters.pattern import is_word, letter, repaired, sentence_spans
from tavq.text.tagging import load_tagger
from tavq.text.word_vectors import read_word_vectors

TENSORS = "wordgraph.safetensors"
RECORD = "wordgraph.json"
FEWEST = 10
"""Words seen more often than this are kept [VQCT's public code]."""

MAX_WORDS = 9_000
"""Of both kinds: they become settings of a codebook, and settings hold no more than 10,000 values."""

ADJECTIVE_PROMPT = "a photo of {} object"
NOUN_PROMPT = "a photo of {}"


@dataclass(frozen=True)
class WordGraph:
    """Words, the more frequent first, and how often each adjective stood directly before each noun."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    adjective_counts: tuple[int, ...]
    noun_counts: tuple[int, ...]
    edges: Int[np.ndarray, "e 2"]  # place of the adjective, place of the noun; sorted, without repeats
    edge_counts: Int[np.ndarray, " e"]
    vectors: Float[np.ndarray, "k t"]  # of the adjectives, then of the nouns


@dataclass(frozen=True)
class WordGraphSummary:
    """What `build_word_graph` did."""

    adjectives: int
    nouns: int
    edges: int


class Record(Config):
    """`wordgraph.json`: the words, what made the vectors, and what the tensor file must be."""

    format: Literal[1]
    encoder: EncoderRecord
    prompts: bool = True
    """The vectors are an encoder's, of prompts; else a file's."""
    fewest: int
    edges: int
    adjectives: tuple[str, ...]
    adjective_counts: tuple[int, ...]
    nouns: tuple[str, ...]
    noun_counts: tuple[int, ...]
    sha256: str


# --- words of a corpus ------------------------------------------------------------------------------------------


class Corpus(NamedTuple):
    """How often each adjective, each noun and each adjective directly before a noun was seen."""

    adjectives: Counter[str]
    nouns: Counter[str]
    pairs: Counter[tuple[str, str]]


def read_corpus(texts: Iterable[str]) -> Corpus:
    """The adjectives and nouns of texts in lower case, nouns in the singular.

    Source: VQCT (Zhang et al., CVPR 2024), section 3.3, steps 1 and 2, and its public code.
    Differs from the paper: TextBlob's lexicon and rules tag and make singular, not NLTK's tagger and WordNet; words
    that cannot be seen ("same", "kind") or speak of the image itself ("photo") are left out; a noun that shades a
    colour or another noun ("orange shirt") is an adjective there.
    """
    adjectives: Counter[str] = Counter()
    nouns: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        cleaned = clean(text)
        for spans in sentence_spans(cleaned):
            words = [cleaned[start:end] for start, end in spans]
            kinds = parts_of_speech(words)
            words = [word.lower() for word in words]
            adjectives.update(word for word, kind in zip(words, kinds, strict=True) if kind == "adjective")
            nouns.update(word for word, kind in zip(words, kinds, strict=True) if kind == "noun")
            followed = zip(words, words[1:], pairwise(kinds), strict=False)
            pairs.update((first, second) for first, second, kind in followed if kind == ("adjective", "noun"))
    return _in_singular(Corpus(adjectives, nouns, pairs))


def parts_of_speech(tokens: Sequence[str]) -> list[str]:
    """`adjective`, `noun` or nothing for each token of a sentence; comparatives are neither, as in the public code."""
    tags = repaired(tokens, load_tagger().tag(tokens))
    letters = [letter(token, tag) for token, tag in zip(tokens, tags, strict=True)]
    kinds = []
    for place, (token, tag, kind) in enumerate(zip(tokens, tags, letters, strict=True)):
        shades = kind == "L" and place + 1 < len(letters) and letters[place + 1] in "JLN"
        if not is_word(token):
            kinds.append("")
        elif shades or (kind == "J" and tag == "JJ"):
            kinds.append("adjective")
        else:
            kinds.append("noun" if kind in "NL" else "")
    return kinds


def _in_singular(corpus: Corpus) -> Corpus:
    singular = {noun: singular_of(noun) or _seen(noun, corpus.nouns) for noun in corpus.nouns}
    nouns: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for noun, count in corpus.nouns.items():
        nouns[singular[noun]] += count
    for (adjective, noun), count in corpus.pairs.items():
        pairs[adjective, singular[noun]] += count
    return Corpus(corpus.adjectives, nouns, pairs)


@lru_cache(maxsize=65536)
def singular_of(noun: str) -> str | None:
    """The singular, where the lexicon knows it or the noun as one ("grass"); None where it knows neither."""
    lexicon = load_tagger().lexicon
    return noun if lexicon.get(noun) in ("NN", "NNP") else _known(_by_rule(noun))


def _known(noun: str) -> str | None:
    return noun if load_tagger().lexicon.get(noun) == "NN" else None


def _by_rule(noun: str) -> str:
    from textblob.en.inflect import singularize

    return str(singularize(noun))


def _seen(noun: str, nouns: Mapping[str, int]) -> str:
    """What the rules make of a noun is its singular where the corpus has it as a noun too; never "olife" of "olives".

    A word that the lexicon knows as something else must be a noun as often, or "shorts" were "short".
    """
    single = _by_rule(noun)
    least = 1 if load_tagger().lexicon.get(single) is None else nouns[noun]
    return single if nouns.get(single, 0) >= least else noun


# --- building ---------------------------------------------------------------------------------------------------


def build_word_graph(
    texts: Iterable[str], encoder: TextEncoder, folder: Path, fewest: int = FEWEST, vectors: Path | None = None
) -> WordGraphSummary:
    """Writes the word graph of a corpus beside the text store in `folder`, in place of an older one.

    Words seen more than `fewest` times are kept. Their vectors are those of the prompts of the public code, "a photo of
    NOUN" and "a photo of ADJECTIVE object"; or, with a file of word `vectors` (GloVe), the words' own, and words that
    it lacks are left out.

    Raises DataError where the corpus has too few words, or too many.
    """
    corpus = read_corpus(texts)
    adjectives, nouns = (_frequent(counter, fewest) for counter in (corpus.adjectives, corpus.nouns))
    maker = encoder.record
    if vectors is not None:
        maker, table_of = read_word_vectors(vectors, {*adjectives, *nouns})
        adjectives, nouns = (tuple(word for word in words if word in table_of) for words in (adjectives, nouns))
    _check_sizes(len(adjectives), len(nouns), fewest)
    places = [{word: place for place, word in enumerate(words)} for words in (adjectives, nouns)]
    edges = sorted(
        (places[0][adjective], places[1][noun], count)
        for (adjective, noun), count in corpus.pairs.items()
        if adjective in places[0] and noun in places[1]
    )
    if vectors is not None:
        rows = torch.from_numpy(np.stack([table_of[word] for word in (*adjectives, *nouns)]))
    else:
        prompts = [ADJECTIVE_PROMPT.format(word) for word in adjectives]
        rows = encoder.encode_units([*prompts, *(NOUN_PROMPT.format(word) for word in nouns)])
    table = torch.tensor(edges, dtype=torch.int64).reshape(-1, 3)
    tensors = {"vectors": rows, "edges": table[:, :2], "edge_counts": table[:, 2]}
    write_tensors(folder / TENSORS, tensors)
    record = Record(
        format=1,
        encoder=maker,
        prompts=vectors is None,
        fewest=fewest,
        edges=len(edges),
        adjectives=adjectives,
        adjective_counts=tuple(corpus.adjectives[word] for word in adjectives),
        nouns=nouns,
        noun_counts=tuple(corpus.nouns[word] for word in nouns),
        sha256=sha256(folder / TENSORS),
    )
    write_json(folder / RECORD, record.model_dump(mode="json"))  # last: what it tells of is there
    return WordGraphSummary(len(adjectives), len(nouns), len(edges))


def _frequent(counter: Counter[str], fewest: int) -> tuple[str, ...]:
    """The words seen more than `fewest` times, the more frequent first, equal ones by the alphabet."""
    kept = [(-count, word) for word, count in counter.items() if count > fewest]
    return tuple(word for _, word in sorted(kept))


def _check_sizes(adjectives: int, nouns: int, fewest: int) -> None:
    if not (adjectives and nouns):
        raise DataError(
            f"The texts have {adjectives} adjectives and {nouns} nouns that were seen more than {fewest} times; a word "
            "graph needs both. Lower --min-count or take more texts."
        )
    if adjectives + nouns > MAX_WORDS:
        raise DataError(
            f"The texts have {adjectives + nouns:,} words that were seen more than {fewest} times; a word graph takes "
            f"up to {MAX_WORDS:,}. Raise --min-count."
        )


# --- reading ----------------------------------------------------------------------------------------------------


def read_word_graph(folder: Path, encoder: EncoderRecord) -> WordGraph:
    """The word graph beside a text store, checked; `encoder` is what made the store.

    Raises:
        UsageError: there is none.
        FileError: it was cut, altered, or made by another encoder than the store.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"The text store {folder} has no word graph; make it with: tavq text DIR --word-graph")
    record = _read_record(path)
    if record.prompts and record.encoder != encoder:
        raise FileError(
            f"{path} is of the encoder {record.encoder.name!r} and the store beside it of {encoder.name!r}; "
            "make both with one: tavq text DIR --word-graph"
        )
    check_sha256(folder / TENSORS, record.sha256)
    tensors = MappedTensors(folder / TENSORS)
    k, e = len(record.adjectives) + len(record.nouns), record.edges
    vectors = _shaped(tensors, "vectors", "<f4", (k, record.encoder.width))
    edges, counts = _shaped(tensors, "edges", "<i8", (e, 2)), _shaped(tensors, "edge_counts", "<i8", (e,))
    sizes = (len(record.adjectives), len(record.nouns))
    if not np.isfinite(vectors).all() or (edges < 0).any() or (edges >= sizes).any() or (counts < 1).any():
        raise FileError(f"{tensors.path} was altered: it holds edges or vectors that no word graph has.")
    return WordGraph(
        record.adjectives, record.nouns, record.adjective_counts, record.noun_counts, edges, counts, vectors
    )


def _read_record(path: Path) -> Record:
    told = read_json(path)
    if not isinstance(told, dict):
        raise FileError(f"{path} is not the record of a word graph: it holds no settings.")
    try:
        return build(Record, told, str(path))
    except UsageError as error:
        raise FileError(f"{path} is not the record of a word graph: {error}") from error


def _shaped(tensors: MappedTensors, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(tensors[name])
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise FileError(f"{tensors.path} was altered: {name} holds {array.dtype} of shape {array.shape}.")
    return array
