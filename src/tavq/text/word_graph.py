"""The word graph of a corpus: its adjectives and nouns with their vectors, and which adjective modifies which noun."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from tavq.core.config import Config, build_stored
from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import MAX_JSON, check_sha256, read_json, sha256, write_json, write_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.text.encoder_record import EncoderRecord
from tavq.text.encoders import TextEncoder
from tavq.text.granularity import clean
from tavq.text.splitters.pattern import classify_token, correct_tags, is_word, sentence_spans
from tavq.text.tagging import load_tagger
from tavq.text.word_vectors import read_word_vectors

TENSORS = "wordgraph.safetensors"
RECORD = "wordgraph.json"
MIN_COUNT = 10
"""Words that occur more often than this are kept [VQCT's public code]."""

MAX_WORDS = 9_000
"""Adjectives and nouns together: they become settings of a codebook, and settings hold at most 10,000 values."""

ADJECTIVE_PROMPT = "a photo of {} object"
NOUN_PROMPT = "a photo of {}"


@dataclass(frozen=True)
class WordGraph:
    """Words, most frequent first, and how often each adjective occurs directly before each noun."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    adjective_counts: tuple[int, ...]
    noun_counts: tuple[int, ...]
    edges: Int[np.ndarray, "e 2"]  # index of the adjective, index of the noun; sorted, without repeats
    edge_counts: Int[np.ndarray, " e"]
    vectors: Float[np.ndarray, "k t"]  # of the adjectives, then of the nouns


@dataclass(frozen=True)
class WordGraphSummary:
    """The sizes of a word graph."""

    adjectives: int
    nouns: int
    edges: int


class WordGraphRecord(Config):
    """`wordgraph.json`: the words, what made the vectors, and the hash of the tensor file."""

    RENAMED: ClassVar = {"fewest": "min_count"}

    format: Literal[1]
    encoder: EncoderRecord
    prompts: bool = True
    """The vectors are an encoder's, of prompts; otherwise they come from a file of word vectors."""
    min_count: int
    edges: int
    adjectives: tuple[str, ...]
    adjective_counts: tuple[int, ...]
    nouns: tuple[str, ...]
    noun_counts: tuple[int, ...]
    sha256: str


# --- words of a corpus ------------------------------------------------------------------------------------------


class Corpus(NamedTuple):
    """How often each adjective, each noun and each adjective directly before a noun occurs."""

    adjectives: Counter[str]
    nouns: Counter[str]
    pairs: Counter[tuple[str, str]]


def read_corpus(texts: Iterable[str]) -> Corpus:
    """Count the adjectives and nouns of texts, in lower case and nouns in the singular.

    Source: VQCT (Zhang et al., CVPR 2024), section 3.3, steps 1 and 2, and its public code.
    Differs from the paper: TextBlob's lexicon and rules tag and singularize, not NLTK's tagger and WordNet; words that
    name nothing visible ("same", "kind") or the image itself ("photo") are left out; a noun that shades a colour or
    another noun ("orange shirt") counts as an adjective there.
    """
    adjectives: Counter[str] = Counter()
    nouns: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        cleaned = clean(text)
        for spans in sentence_spans(cleaned):
            words = [cleaned[start:end] for start, end in spans]
            kinds = classify_words(words)
            words = [word.lower() for word in words]
            adjectives.update(word for word, kind in zip(words, kinds, strict=True) if kind == "adjective")
            nouns.update(word for word, kind in zip(words, kinds, strict=True) if kind == "noun")
            neighbours = zip(pairwise(words), pairwise(kinds), strict=True)
            pairs.update(pair for pair, pair_kinds in neighbours if pair_kinds == ("adjective", "noun"))
    return _make_singular(Corpus(adjectives, nouns, pairs))


def classify_words(tokens: Sequence[str]) -> list[str]:
    """`adjective`, `noun` or "" for each token of a sentence; comparatives are neither, as in the public code."""
    tags = correct_tags(tokens, load_tagger().tag(tokens))
    classes = [classify_token(token, tag) for token, tag in zip(tokens, tags, strict=True)]
    kinds = []
    for index, (token, tag, token_class) in enumerate(zip(tokens, tags, classes, strict=True)):
        shades = token_class == "L" and index + 1 < len(classes) and classes[index + 1] in "JLN"
        if not is_word(token):
            kinds.append("")
        elif shades or (token_class == "J" and tag == "JJ"):
            kinds.append("adjective")
        else:
            kinds.append("noun" if token_class in "NL" else "")
    return kinds


def _make_singular(corpus: Corpus) -> Corpus:
    singular = {noun: look_up_singular(noun) or _guess_singular(noun, corpus.nouns) for noun in corpus.nouns}
    nouns: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for noun, count in corpus.nouns.items():
        nouns[singular[noun]] += count
    for (adjective, noun), count in corpus.pairs.items():
        pairs[adjective, singular[noun]] += count
    return Corpus(corpus.adjectives, nouns, pairs)


@lru_cache(maxsize=65536)
def look_up_singular(noun: str) -> str | None:
    """The singular if the lexicon knows it, or knows the noun as a singular ("grass"); otherwise None."""
    lexicon = load_tagger().lexicon
    if lexicon.get(noun) in ("NN", "NNP"):
        return noun
    singular = _singularize(noun)
    return singular if lexicon.get(singular) == "NN" else None


def _singularize(noun: str) -> str:
    from textblob.en.inflect import singularize

    return str(singularize(noun))


def _guess_singular(noun: str, nouns: Mapping[str, int]) -> str:
    """The singular by rule if the corpus has it as a noun too, so that "olives" never become "olife".

    A singular that the lexicon knows as another part of speech must be as frequent, or "shorts" would become "short".
    """
    singular = _singularize(noun)
    needed = 1 if load_tagger().lexicon.get(singular) is None else nouns[noun]
    return singular if nouns.get(singular, 0) >= needed else noun


# --- building ---------------------------------------------------------------------------------------------------


def build_word_graph(
    texts: Iterable[str], encoder: TextEncoder, folder: Path, min_count: int = MIN_COUNT, vectors: Path | None = None
) -> WordGraphSummary:
    """Write the word graph of a corpus into the folder of its text store; an older one is replaced.

    The vectors encode the prompts of the public code, "a photo of NOUN" and "a photo of ADJECTIVE object".

    Args:
        texts: the corpus.
        encoder: encodes the prompts.
        folder: the text store's folder.
        min_count: words that occur more often than this are kept.
        vectors: a file of word vectors (GloVe) to use instead of the encoder; words that it lacks are left out.

    Raises DataError if the corpus has too few words, or too many.
    """
    corpus = read_corpus(texts)
    adjectives, nouns = _select_frequent(corpus.adjectives, min_count), _select_frequent(corpus.nouns, min_count)
    maker = encoder.record
    if vectors is not None:
        maker, table = read_word_vectors(vectors, {*adjectives, *nouns})
        adjectives = tuple(word for word in adjectives if word in table)
        nouns = tuple(word for word in nouns if word in table)
    _check_sizes(len(adjectives), len(nouns), min_count)
    adjective_ids = {word: index for index, word in enumerate(adjectives)}
    noun_ids = {word: index for index, word in enumerate(nouns)}
    edges = sorted(
        (adjective_ids[adjective], noun_ids[noun], count)
        for (adjective, noun), count in corpus.pairs.items()
        if adjective in adjective_ids and noun in noun_ids
    )
    if vectors is not None:
        word_vectors = torch.from_numpy(np.stack([table[word] for word in (*adjectives, *nouns)]))
    else:
        prompts = [ADJECTIVE_PROMPT.format(word) for word in adjectives]
        prompts += [NOUN_PROMPT.format(word) for word in nouns]
        word_vectors = encoder.encode_units(prompts)
    rows = torch.tensor(edges, dtype=torch.int64).reshape(-1, 3)
    tensors = {"vectors": word_vectors, "edges": rows[:, :2], "edge_counts": rows[:, 2]}
    write_tensors(folder / TENSORS, tensors)
    record = WordGraphRecord(
        format=1,
        encoder=maker,
        prompts=vectors is None,
        min_count=min_count,
        edges=len(edges),
        adjectives=adjectives,
        adjective_counts=tuple(map(corpus.adjectives.__getitem__, adjectives)),
        nouns=nouns,
        noun_counts=tuple(map(corpus.nouns.__getitem__, nouns)),
        sha256=sha256(folder / TENSORS),
    )
    write_json(folder / RECORD, record.model_dump(mode="json"))  # last, so that a record implies complete tensors
    return WordGraphSummary(len(adjectives), len(nouns), len(edges))


def _select_frequent(counter: Counter[str], min_count: int) -> tuple[str, ...]:
    """The words that occur more than `min_count` times, most frequent first, ties in alphabetical order."""
    kept = [(-count, word) for word, count in counter.items() if count > min_count]
    return tuple(word for _, word in sorted(kept))


def _check_sizes(adjectives: int, nouns: int, min_count: int) -> None:
    if not (adjectives and nouns):
        raise DataError(
            f"The texts have {adjectives} adjectives and {nouns} nouns that occur more than {min_count} times; a word "
            "graph needs both. Lower --min-count or take more texts."
        )
    if adjectives + nouns > MAX_WORDS:
        raise DataError(
            f"The texts have {adjectives + nouns:,} words that occur more than {min_count} times; a word graph takes "
            f"up to {MAX_WORDS:,}. Raise --min-count."
        )


# --- reading ----------------------------------------------------------------------------------------------------


def read_word_graph(folder: Path, encoder: EncoderRecord) -> WordGraph:
    """Read and check the word graph of a text store; `encoder` is the store's.

    Raises:
        UsageError: there is none.
        FileError: it was truncated, altered, or made by another encoder than the store.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"The text store {folder} has no word graph; build it with: tavq text DIR --word-graph")
    record = _read_record(path)
    if record.prompts and record.encoder != encoder:
        raise FileError(
            f"{path} was made by the encoder {record.encoder.name!r}, its text store by {encoder.name!r}; build "
            "both with one encoder: tavq text DIR --word-graph"
        )
    check_sha256(folder / TENSORS, record.sha256)
    tensors = MappedTensors(folder / TENSORS)
    sizes = (len(record.adjectives), len(record.nouns))
    vectors = _read_array(tensors, "vectors", "<f4", (sum(sizes), record.encoder.width))
    edges = _read_array(tensors, "edges", "<i8", (record.edges, 2))
    counts = _read_array(tensors, "edge_counts", "<i8", (record.edges,))
    if not np.isfinite(vectors).all() or (edges < 0).any() or (edges >= sizes).any() or (counts < 1).any():
        raise FileError(f"{tensors.path} was altered: it holds invalid edges or vectors.")
    return WordGraph(
        record.adjectives, record.nouns, record.adjective_counts, record.noun_counts, edges, counts, vectors
    )


def _read_record(path: Path) -> WordGraphRecord:
    settings = read_json(path, MAX_JSON)
    if not isinstance(settings, dict):
        raise FileError(f"{path} is not the record of a word graph: it holds no settings.")
    try:
        return build_stored(WordGraphRecord, settings, str(path))
    except UsageError as error:
        raise FileError(f"{path} is not the record of a word graph: {error}") from error


def _read_array(tensors: MappedTensors, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(tensors[name])
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise FileError(f"{tensors.path} was altered: {name} holds {array.dtype} of shape {array.shape}.")
    return array
