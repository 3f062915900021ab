"""Text of images to vectors: one unit at a time, in padded batches, and as a text store encodes it."""

import random
from collections.abc import Iterator
from functools import partial

import torch

from tavq.bench.case import Alternative, Case, Scale
from tavq.core.errors import TavqError
from tavq.interfaces import GRANULARITIES
from tavq.text.encoders import TextEncoder, load_encoder
from tavq.text.granularity import split

CAPTIONS, WORDS, BATCH = 8, 198, 32
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TOY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
ADJECTIVES = ("red", "green", "blue", "small", "large", "old", "new", "bright", "dark", "wooden", "round", "wet")
NOUNS = ("house", "tree", "road", "dog", "cat", "table", "lamp", "river", "boat", "window", "field", "horse")


def cases(scale: Scale) -> Iterator[Case]:
    """Eight captions of 198 words, split into words, phrases and sentences, by an encoder of BERT-base's size."""
    texts = list(captions(2 if scale.toy else CAPTIONS, 30 if scale.toy else WORDS))
    units = [unit for text in texts for name in GRANULARITIES[1:] for unit in split(text)[name]]
    distinct = list(dict.fromkeys(units))
    case = Case("text/captions", f"Encode the {len(units)} units of {len(texts)} captions", rounds=3)
    try:
        plain, rounded = (make_encoder(dtype, scale) for dtype in (torch.float32, torch.bfloat16))
    except (TavqError, ImportError) as error:
        case.absent["all"] = f"the tokenizer of all-MiniLM-L6-v2 is missing ({error})"
        yield case
        return
    near = torch.cosine_similarity(plain.encode_units(distinct), rounded.encode_units(distinct)).min().item()
    case.alternatives += [
        Alternative("one unit at a time", partial(one_at_a_time, plain, units)),
        Alternative("padded batches", partial(in_batches, plain, units), note=f"{BATCH} units as they come"),
        Alternative("tavq", partial(plain.encode_units, distinct), note=f"{len(distinct)} distinct units by length"),
        Alternative("tavq, bf16", partial(rounded.encode_units, distinct), note=f"cosine to fp32 at least {near:.5f}"),
    ]
    yield case


def captions(count: int, words: int) -> Iterator[str]:
    """Texts of about `words` words that repeat phrases as real captions do."""
    chosen = random.Random(0)
    for _ in range(count):
        sentences = (
            f"The {chosen.choice(ADJECTIVES)} {chosen.choice(NOUNS)} stands near a {chosen.choice(ADJECTIVES)} "
            f"{chosen.choice(NOUNS)} with a {chosen.choice(NOUNS)}."
            for _ in range(max(1, words // 11))
        )
        yield " ".join(sentences)


def make_encoder(dtype: torch.dtype, scale: Scale) -> TextEncoder:
    """An encoder with random weights and MiniLM's tokenizer, which is BERT's."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = TOY if scale.toy else BERT_BASE
    model = BertModel(BertConfig(vocab_size=30522, **sizes)).eval().to(scale.device, dtype)  # type: ignore[arg-type]
    return TextEncoder(model, load_encoder("minilm").tokenizer, "bert-base-sized", "0" * 64)


def one_at_a_time(encoder: TextEncoder, units: list[str]) -> None:
    """A call for each unit."""
    for unit in units:
        encoder.encode_units([unit])


@torch.no_grad()
def in_batches(encoder: TextEncoder, units: list[str]) -> None:
    """Batches in the order of the text, padded to their longest unit."""
    for start in range(0, len(units), BATCH):
        padded = encoder.tokenizer(units[start : start + BATCH], padding=True, return_tensors="pt")
        encoder.model(**padded.to(encoder.model.device))
