"""Captions of a prompt, split and encoded in the same way as the text that a task was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tavq.core.config import build, rename_settings
from tavq.core.errors import FileError, UsageError
from tavq.data.texts import collate_text
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED, TextFeatures
from tavq.text.encoder_record import EncoderRecord
from tavq.text.encoders import TextEncoder, load_encoder
from tavq.text.granularity import Units, clean, split
from tavq.text.store import Contents, SplitterRecord, record_splitter

MAX_CHARACTERS = 5_000
"""Of a caption; the rest is dropped. Several times the longest text that tasks are trained on."""

SHOWN = 40
"""Characters of a caption, and number of its words, that a message quotes."""

RARE_PIECES = 3
"""Word pieces of an unusual word, such as `frisbee`; a caption of only these is likely made up."""

UNKNOWN_PIECES = 4
"""Word pieces of a word that is made up, rare or of another script; the encoder hardly knows it."""


@dataclass(frozen=True)
class EncodedPrompts:
    """The encoded text of captions, and notes for the user about them, one line each."""

    features: TextFeatures
    notes: tuple[str, ...]


class PromptEncoder:
    """Encodes captions as the text store of a task's training did.

    Args:
        metadata: of the task's model folder; its `text` is the manifest of that store.
        encoder: folder of the text encoder, if the name in the metadata cannot be resolved.
        device: where the encoder runs.

    Raises:
        UsageError: the model was trained without a text store, or `encoder` is not the encoder of its training.
        FileError: the metadata or the encoder's files are damaged.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        encoder: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        text = metadata.get("text")
        if text is None:
            raise UsageError("This model was trained without a text store, so it cannot read a caption.")
        if not isinstance(text, Mapping) or not isinstance(text.get("encoder"), Mapping):
            raise FileError("The model's config.json does not say which text encoder it was trained with.")
        self.trained_encoder = build(EncoderRecord, text["encoder"], "The model's text encoder")
        self.splitter = build(SplitterRecord, text.get("splitter") or {}, "The model's splitter")
        text = rename_settings(text, Contents.RENAMED, warn=False)
        self.full_text, self.float16 = text.get("full_text") is True, text.get("float16") is True
        self.notes: tuple[str, ...] = self._check_splitter()
        self.encoder = self._load_encoder(encoder, device)

    def _check_splitter(self) -> tuple[str, ...]:
        """A note if the splitter has another version than in training."""
        now = record_splitter(self.splitter.name)
        if now == self.splitter:
            return ()
        return (
            f"The model's texts were split by {self.splitter.name!r} version {self.splitter.version}, yours by version "
            f"{now.version}; units may differ.",
        )

    def _load_encoder(self, place: str | Path | None, device: str | torch.device) -> TextEncoder:
        expected = self.trained_encoder
        try:
            named = place if place is not None else expected.name
            encoder = load_encoder(named, device, projection=None if expected.projected else False)
        except UsageError as error:
            if place is not None:
                raise
            raise UsageError(
                f"The text encoder {expected.name!r} of this model was not found; give its folder. ({error})"
            ) from error
        found = encoder.record
        same_form = (found.width, found.projected) == (expected.width, expected.projected)
        if not same_form or (found.name, found.sha256) != (expected.name, expected.sha256):
            raise UsageError(
                f"The model reads text by the encoder {expected.name!r} (weights {expected.sha256[:12]}…), but "
                f"{str(place or expected.name)!r} is {found.name!r} (weights {found.sha256[:12]}…); give the model's "
                "own encoder."
            )
        return encoder

    def __call__(self, captions: Sequence[str]) -> EncodedPrompts:
        """Encodes captions and pads them as the loader does.

        Raises:
            UsageError: there are no captions, or one is empty, contains no word or number, or is in a script that the
                text encoder does not read.
        """
        if not captions:
            raise UsageError("No caption was given; say what the image should show.")
        notes = list(self.notes)
        texts = [self._clean(f"Caption {number}", caption, notes) for number, caption in enumerate(captions, 1)]
        units = [split(text, self.splitter.name) for text in texts]
        for number, (text, found) in enumerate(zip(texts, units, strict=True), 1):
            self._check(f"Caption {number}", text, found, notes)
        source = _CaptionSource(self.encoder.width, self._encode(texts, units))
        tables = (*GRANULARITIES, FULL_TEXT, POOLED) if self.full_text else GRANULARITIES
        return EncodedPrompts(collate_text(source, [*source.captions], tables), tuple(notes))

    def _clean(self, name: str, caption: str, notes: list[str]) -> str:
        """The caption in clean Unicode, cut to MAX_CHARACTERS at a word boundary."""
        text = clean(caption).strip()
        if not text:
            raise UsageError(f"{name} is empty; say what the image should show.")
        if len(text) > MAX_CHARACTERS:
            head = text[: MAX_CHARACTERS + 1]
            text = head[: max(head.rfind(" "), 0) or MAX_CHARACTERS].strip()
            notes.append(f"{name} has {len(caption):,} characters; only the first {len(text):,} are read.")
        return text

    def _check(self, name: str, text: str, units: Units, notes: list[str]) -> None:
        """Refuses a caption that the encoder cannot read, and adds notes about words that it hardly knows."""
        if not units.sentences:
            raise UsageError(f"{name} {_shorten(text)!r} contains no word or number; say what the image should show.")
        [tokens] = self.encoder.tokenize([text])
        unknown = tokens.count(self.encoder.tokenizer.unk_token_id)
        if 2 * unknown >= len(tokens):
            raise UsageError(
                f"{name} {_shorten(text)!r} is in a script that the text encoder {self.encoder.name!r} does not read: "
                f"{unknown} of its {len(tokens)} tokens are unknown. Write it in the language of the model's texts."
            )
        words = [word for word in units.words if word.isalpha()]
        pieces = [len(ids) for ids in self.encoder.tokenize(words)]
        unknown_words = [word for word, count in zip(words, pieces, strict=True) if count >= UNKNOWN_PIECES]
        if pieces and min(pieces) >= RARE_PIECES:
            notes.append(f"{name}: the text encoder knows none of its words, so it may have little effect.")
        if unknown_words:
            more = ", …" if len(unknown_words) > SHOWN else ""
            quoted = ", ".join(map(_shorten, unknown_words[:SHOWN]))
            notes.append(f"{name}: the text encoder does not know these words and only spells them: {quoted}{more}.")
        longest, limit = max(map(len, self.encoder.tokenize(units.sentences))), self.encoder.max_unit
        if longest > limit:
            notes.append(f"{name}: a sentence has {longest} tokens; the text encoder reads it in parts of {limit}.")

    def _encode(self, texts: Sequence[str], units: Sequence[Units]) -> list[dict[str, np.ndarray]]:
        """The vectors of each text by granularity, as a text store returns them."""
        encoded: list[dict[str, np.ndarray]] = [{} for _ in texts]
        for granularity in GRANULARITIES:
            encode = self.encoder.encode_words if granularity == "words" else self.encoder.encode_units
            vectors = encode([unit for found in units for unit in found[granularity]])
            self._distribute(encoded, granularity, vectors, [len(found[granularity]) for found in units])
        if self.full_text:
            tokens = self.encoder.tokenize(texts)
            vectors, pooled = self.encoder.encode_tokens(tokens)
            self._distribute(encoded, FULL_TEXT, vectors, [len(ids) for ids in tokens])
            for tables, vector in zip(encoded, self._round(pooled), strict=True):
                tables[POOLED] = vector
        return encoded

    def _distribute(
        self, encoded: list[dict[str, np.ndarray]], name: str, vectors: torch.Tensor, counts: Sequence[int]
    ) -> None:
        """Gives each text its own rows of the vectors of all texts."""
        parts = np.split(self._round(vectors), np.cumsum(counts)[:-1])
        for tables, part in zip(encoded, parts, strict=True):
            tables[name] = part

    def _round(self, vectors: torch.Tensor) -> np.ndarray:
        """The vectors in the precision of the store."""
        return (vectors.half().float() if self.float16 else vectors).numpy()


class _CaptionSource:
    """The TextSource of captions, by their number."""

    def __init__(self, width: int, captions: Sequence[dict[str, np.ndarray]]) -> None:
        self.width = width
        self.captions = {str(number): tables for number, tables in enumerate(captions)}

    def __contains__(self, key: str) -> bool:
        return key in self.captions

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        """The vectors of one caption."""
        return self.captions[key]

    def vocabulary(self, granularity: str) -> tuple[Sequence[str], Any]:
        """Raises UsageError: captions of a prompt have no vocabulary."""
        raise UsageError(f"The captions of a prompt have no vocabulary of {granularity}.")


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
