"""A Hugging Face causal language model and its tokenizer, extended by the tokens of a tokenizer's images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.pretrained import download_from_hub, quiet_transformers
from tavq.interfaces import DEEP
from tavq.interop.image_vocabulary import BEGIN, END, ROW, ImageVocabulary
from tavq.tokenizer import Tokenizer

FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.jinja")
"""Of a language model on the hub; weights that are pickled stay there, and so does code."""

MANIFEST = "image_tokens.json"


@dataclass(frozen=True)
class Begun:
    """How the rows of the new tokens began."""

    granularity: str | None  # of the aligner's map; None where rows are random
    words: int  # onto whose embeddings rows were turned
    first_id: int
    tied: bool  # the head shares the embedding


Words = tuple[Sequence[str], Float[Tensor, "u t"]]
"""Words and their vectors by the text encoder that the aligner was trained with."""


def extend_language_model(
    tokenizer: Tokenizer,
    language_model: str,
    out: Path,
    sha256: str | None,
    seed: int = 0,
    words: Words | None = None,
) -> Begun:
    """Write a language model and its tokenizer with one more token for each codebook entry, and begin, end and row.

    The ids of the new tokens follow those of the text tokenizer; rows of the embedding that no text token uses are
    taken first. Where the tokenizer has an aligner with a map of entries to the text encoder's space, rows begin from
    it (`spread_rows`); else, and for begin, end and row, they are random. Both have the mean and the spread of the
    rows that are there, in the embedding and in a head with weights of its own. No other weight changes.

    Args:
        tokenizer: the tokenizer of images.
        language_model: a folder, or a name on the hub.
        out: a new or empty folder.
        sha256: of the image tokenizer's weights.
        seed: of the random numbers.
        words: words that both the text encoder and the language model know.

    Raises:
        UsageError: the language model has image tokens already, or there is none.
        FileError: it cannot be read, or `out` cannot be written.
    """
    path = Path(language_model)
    folder = path if path.is_dir() else download_from_hub(language_model, "language model", FILES)
    vocabulary = ImageVocabulary(tuple(tokenizer.codebook.sizes))
    model, text = _load(folder)
    first = _add_tokens(text, vocabulary.names(), folder)
    ids = torch.arange(first, first + len(vocabulary.names()))
    granularity, points = map_entries(tokenizer)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(ids), model.get_input_embeddings().weight.shape[1], generator=generator)
    if points is not None and words is not None:
        known = embed_words(model, text, words[0])
        rows[: len(points)] = rotate_onto_words(points.float(), words[1].float(), known)
    elif points is not None:
        rows[: len(points)] = spread_rows(points.float(), rows.shape[1], generator)
    tied = _extend(model, ids, rows)
    count = 0 if words is None or points is None else len(words[0])
    begun = _describe(granularity, count)
    with files.create_folder(out) as place, quiet_transformers():
        model.save_pretrained(place)
        text.save_pretrained(place)
        files.write_json(place / MANIFEST, _manifest(vocabulary, first, begun, sha256))
        files.write_text(place / "README.md", _card(path.name, vocabulary, first, begun, sha256))
    return Begun(granularity, count, first, tied)


def _load(folder: Path) -> tuple[Any, Any]:
    """The language model, in the type of its weights, and its tokenizer; runs no code of the folder."""
    with quiet_transformers():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            text = AutoTokenizer.from_pretrained(folder, **local)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, dtype="auto", output_loading_info=True, **local
            )
        except Exception as error:  # transformers raises a dozen types; each means that it cannot be loaded
            raise FileError(f"{folder} is not a causal language model: {first_line(error)[:300]}") from error
    model, report = loaded
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    missing = sorted(set(report["missing_keys"]) - tied)
    if missing:  # transformers fills them with random weights and only logs it
        raise FileError(f"{folder} lacks {len(missing)} of its weights, for example {missing[0]}.")
    if not len(text):  # transformers makes an empty tokenizer where the folder has none
        raise FileError(f"{folder} holds no tokenizer; add the one of the language model.")
    return model, text


def _add_tokens(text: Any, names: list[str], folder: Path) -> int:
    """Add the tokens after all others and return the first id."""
    from transformers import AddedToken

    known = text.get_vocab()
    if present := [name for name in names if name in known]:
        raise UsageError(
            f"{folder} has the token {present[0]!r} already; give the language model without image tokens."
        )
    first = max(known.values()) + 1
    special = (BEGIN, END, ROW)
    text.add_tokens([AddedToken(name, normalized=False) for name in names if name not in special])
    text.add_tokens([AddedToken(name, normalized=False, special=True) for name in special], special_tokens=True)
    ids = text.convert_tokens_to_ids(names)
    assert ids == list(range(first, first + len(names))), "ids of added tokens follow each other"
    return first


# --- rows -------------------------------------------------------------------------------------------------------


def map_entries(tokenizer: Tokenizer) -> tuple[str | None, Float[Tensor, "k t"] | None]:
    """The codebook's entries in the text encoder's space, and the granularity whose map that is; None without a map.

    Maps of the deep level come first; those of others do only where they share its codebook.
    """
    aligner = tokenizer.aligner
    if aligner is None:
        return None, None
    codebooks = tokenizer.codebooks
    fitting = [name for name, level in aligner.entry_levels.items() if codebooks[level] is tokenizer.codebook]
    for granularity in sorted(fitting, key=lambda name: aligner.entry_levels[name] != DEEP):
        with torch.no_grad():
            points = aligner.embed_entries(tokenizer.lookup_entries(), granularity)
        if points is not None:
            return granularity, points
    return None, None


@torch.no_grad()
def _extend(model: Any, ids: Int[Tensor, " n"], rows: Float[Tensor, "n e"]) -> bool:
    """Add rows to the embedding and to a head of its own; returns whether the head shares the embedding.

    Args:
        model: the language model.
        ids: of the new tokens.
        rows: with mean 0 and mean square 1.
    """
    text_tokens = int(ids[0])
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is embedding.weight
    if len(embedding.weight) <= int(ids[-1]):
        model.resize_token_embeddings(int(ids[-1]) + 1, mean_resizing=False)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [embedding.weight] if tied else [embedding.weight, head.weight]
    for weight in weights:
        old = weight[:text_tokens].float()
        mean = old.mean(0)
        scale = (old - mean).square().mean().sqrt()
        weight[ids] = (mean + scale * rows).to(weight.dtype)
    return tied


def spread_rows(points: Float[Tensor, "k t"], width: int, generator: torch.Generator) -> Float[Tensor, "k {width}"]:
    """Points in another width, with the mean 0 and the mean square 1: their distances keep their proportions.

    The points less their mean are expressed by their principal directions, of which the first `width` are kept, and
    these are rotated at random, so that no dimension of the language model gets all of the spread.
    """
    centred = (points - points.mean(0)).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :width]
    square = torch.randn(width, width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(square).Q[: directions.shape[1]]
    return _with_unit_spread(centred @ directions @ rotation)


def rotate_onto_words(
    points: Float[Tensor, "k t"], words: Float[Tensor, "u t"], known: Float[Tensor, "u e"]
) -> Float[Tensor, "k e"]:
    """Points in the language model's width, turned so that words come as near to its own embeddings as turning can.

    Distances keep their proportions where the width allows it; the mean is 0 and the mean square 1.

    Source: the orthogonal Procrustes problem (Schönemann, 1966), on unit vectors less their mean.

    Args:
        points: in the text encoder's space.
        words: of words, in the same space.
        known: the language model's embeddings of the same words.
    """
    from_text, to_model = (_unit(vectors.double()) for vectors in (words, known))
    left, _, right = torch.linalg.svd(from_text.T @ to_model, full_matrices=False)
    return _with_unit_spread((points - points.mean(0)).double() @ left @ right)


@torch.no_grad()
def embed_words(model: Any, text: Any, words: Sequence[str]) -> Float[Tensor, "u e"]:
    """The mean of a language model's embeddings of the tokens of each word, as it stands after a space."""
    weight = model.get_input_embeddings().weight.float()
    ids = text([f" {word}" for word in words], add_special_tokens=False).input_ids
    return torch.stack([weight[torch.tensor(tokens or [0])].mean(0) for tokens in ids])


def _unit(vectors: Float[Tensor, "u d"]) -> Float[Tensor, "u d"]:
    """Unit vectors less their mean."""
    unit = F.normalize(vectors, dim=1)
    return unit - unit.mean(0)


def _with_unit_spread(rows: Float[Tensor, "k e"]) -> Float[Tensor, "k e"]:
    return (rows / rows.square().mean().sqrt().clamp(min=1e-12)).float()


# --- what goes with it ------------------------------------------------------------------------------------------


def _describe(granularity: str | None, words: int) -> str:
    """How the rows of entries began."""
    if granularity is None:
        return "at random"
    turned = f"turned onto the language model's embeddings of {words:,} words" if words else "turned at random"
    return f"from the codebook, through the aligner's map of {granularity} to the text encoder's space, {turned}"


def _manifest(vocabulary: ImageVocabulary, first: int, begun: str, sha256: str | None) -> dict[str, Any]:
    return {
        "tokenizer_sha256": sha256,
        "sizes": list(vocabulary.sizes),
        "first_id": first,
        "special": {name: first + vocabulary.entries + i for i, name in enumerate((BEGIN, END, ROW))},
        "begun": begun,
    }


def _card(name: str, vocabulary: ImageVocabulary, first: int, begun: str, sha256: str | None) -> str:
    last = first + vocabulary.entries - 1
    return f"""# {name} with image tokens

A language model whose vocabulary has the tokens of images; it was not trained on them yet. The licence of {name} holds
for it too.

| | |
|---|---|
| image tokens | `<image_0>` to `<image_{vocabulary.entries - 1}>`, ids {first} to {last} |
| special tokens | `{BEGIN}` {last + 1}, `{END}` {last + 2}, `{ROW}` {last + 3} |
| sha256 of the image tokenizer's weights | {sha256 or "unknown"} |
| rows of the image tokens | begun {begun}; mean and spread are those of the rows of the text tokens |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

`tavq export MODEL --to tokens` writes a data set in these tokens.
"""
