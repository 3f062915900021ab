"""Sentences that a person types, as the text that a task was trained on: split and encoded in the same way."""

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
from tavq.text.encoders import EncoderRecord, TextEncoder, load_encoder
from tavq.text.granularity import Units, clean, split
from tavq.text.store import Contents, SplitterRecord, record_splitter

MAX_TYPED = 5_000
"""Characters of a caption that count: several times the longest text that tasks are trained on."""

SHOWN = 40
"""Characters of a caption, and words of it, that a message shows."""

RARE = 3
"""A word of so many pieces is unusual, such as `frisbee`; a caption of nothing else is likely made up."""

SPELLED = 4
"""A word of so many pieces is made up, rare or of another script; the encoder hardly knows it."""


@dataclass(frozen=True)
class EncodedPrompts:
    """The text of some captions, and what their writer should be told of it, one line each."""

    features: TextFeatures
    notes: tuple[str, ...]


class PromptEncoder:
    """Makes text of what a person types, as the text store of a task's training held it.

    Args:
        metadata: of the task's model folder; `text` is the manifest of that store.
        encoder: where the text encoder is, where the model's own name for it is not enough (a folder).
        device: where it computes.

    Raises:
        UsageError: the model was trained without a text store, or the encoder is another one than its own.
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
            raise UsageError("This model was trained without a text store, so it cannot be told what to draw.")
        if not isinstance(text, Mapping) or not isinstance(text.get("encoder"), Mapping):
            raise FileError("The model's config.json does not say which text encoder it was trained with.")
        self.made = build(EncoderRecord, text["encoder"], "The model's text encoder")
        self.splitter = build(SplitterRecord, text.get("splitter") or {}, "The model's splitter")
        text = rename_settings(text, Contents.RENAMED, warn=False)
        self.full_text, self.float16 = text.get("full_text") is True, text.get("float16") is True
        self.notes: tuple[str, ...] = self._checked_splitter()
        self.encoder = self._loaded(encoder, device)

    def _checked_splitter(self) -> tuple[str, ...]:
        now = record_splitter(self.splitter.name)
        if now == self.splitter:
            return ()
        return (
            f"The model's texts were split by {self.splitter.name!r} version {self.splitter.version}, yours by version "
            f"{now.version}; units may differ.",
        )

    def _loaded(self, place: str | Path | None, device: str | torch.device) -> TextEncoder:
        made = self.made
        try:
            encoder = load_encoder(place if place is not None else made.name, device)
        except UsageError as error:
            if place is not None:
                raise
            raise UsageError(
                f"The model reads text by the encoder {made.name!r}, which is not found; say where it is. ({error})"
            ) from error
        found = encoder.record
        if (found.name, found.sha256, found.width) != (made.name, made.sha256, made.width):
            raise UsageError(
                f"The model reads text by the encoder {made.name!r} (weights {made.sha256[:12]}…), and "
                f"{str(place or made.name)!r} is {found.name!r} (weights {found.sha256[:12]}…); give the model's own."
            )
        return encoder

    def __call__(self, captions: Sequence[str]) -> EncodedPrompts:
        """The text of each caption, padded as the loader pads it.

        Raises:
            UsageError: there is no caption, or one is empty, holds no word or number, or is in a script that the text
                encoder does not read.
        """
        if not captions:
            raise UsageError("There is no caption; say what the image should show.")
        notes = list(self.notes)
        texts = [self._text(f"Caption {number}", caption, notes) for number, caption in enumerate(captions, 1)]
        units = [split(text, self.splitter.name) for text in texts]
        for number, (text, found) in enumerate(zip(texts, units, strict=True), 1):
            self._check(f"Caption {number}", text, found, notes)
        source = _Source(self.encoder.width, self._encoded(texts, units))
        tables = (*GRANULARITIES, FULL_TEXT, POOLED) if self.full_text else GRANULARITIES
        return EncodedPrompts(collate_text(source, [*source.rows], tables), tuple(notes))

    def _text(self, name: str, caption: str, notes: list[str]) -> str:
        """The caption as it is read."""
        text = clean(caption).strip()
        if not text:
            raise UsageError(f"{name} is empty; say what the image should show.")
        if len(text) > MAX_TYPED:
            head = text[: MAX_TYPED + 1]
            text = head[: max(head.rfind(" "), 0) or MAX_TYPED].strip()
            notes.append(f"{name} has {len(caption):,} characters; its first {len(text):,} are read, the rest is not.")
        return text

    def _check(self, name: str, text: str, units: Units, notes: list[str]) -> None:
        """Refuses what says nothing to the model, and tells what says less than it seems to."""
        if not units.sentences:
            raise UsageError(f"{name} {_short(text)!r} holds no word or number; say what the image should show.")
        [tokens] = self.encoder.tokenize([text])
        unknown = tokens.count(self.encoder.tokenizer.unk_token_id)
        if 2 * unknown >= len(tokens):
            raise UsageError(
                f"{name} {_short(text)!r} is in a script that the text encoder {self.encoder.name!r} does not read: "
                f"{unknown} of its {len(tokens)} tokens are unknown. Write it in the language of the model's texts."
            )
        words = [word for word in units.words if word.isalpha()]
        pieces = [len(ids) for ids in self.encoder.tokenize(words)]
        spelled = [word for word, count in zip(words, pieces, strict=True) if count >= SPELLED]
        if pieces and min(pieces) >= RARE:
            notes.append(
                f"{name}: the text encoder knows no word of it whole, so it may say next to nothing to the model."
            )
        if spelled:
            shown = ", ".join(map(_short, spelled[:SHOWN])) + (", …" if len(spelled) > SHOWN else "")
            notes.append(f"{name}: the text encoder does not know these words and only spells them: {shown}.")
        longest = max(map(len, self.encoder.tokenize(units.sentences)))
        if longest > self.encoder.max_length - 2:
            notes.append(f"{name}: a sentence has {longest} tokens; the text encoder reads {self.encoder.max_length}.")

    def _encoded(self, texts: Sequence[str], units: Sequence[Units]) -> list[dict[str, np.ndarray]]:
        """The vectors of each text, as a store gives them."""
        rows: list[dict[str, np.ndarray]] = [{} for _ in texts]
        for granularity in GRANULARITIES:
            encode = self.encoder.encode_words if granularity == "words" else self.encoder.encode_units
            self._share(rows, granularity, encode([u for found in units for u in found[granularity]]), units)
        if self.full_text:
            tokens = self.encoder.tokenize(texts)
            vectors, pooled = self.encoder.encode_tokens(tokens)
            self._share(rows, FULL_TEXT, vectors, [{FULL_TEXT: ids} for ids in tokens])
            for row, vector in zip(rows, self._rounded(pooled), strict=True):
                row[POOLED] = vector
        return rows

    def _share(self, rows: list[dict[str, np.ndarray]], name: str, vectors: torch.Tensor, of: Sequence[Any]) -> None:
        """Gives each row its own part of the vectors of all."""
        ends = np.cumsum([len(found[name]) for found in of])[:-1]
        for row, part in zip(rows, np.split(self._rounded(vectors), ends), strict=True):
            row[name] = part

    def _rounded(self, vectors: torch.Tensor) -> np.ndarray:
        """As the store kept them."""
        return (vectors.half().float() if self.float16 else vectors).numpy()


class _Source:
    """The TextSource of what was typed, by the number of the caption."""

    def __init__(self, width: int, rows: Sequence[dict[str, np.ndarray]]) -> None:
        self.width = width
        self.rows = {str(number): row for number, row in enumerate(rows)}

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        """Those of one caption."""
        return self.rows[key]

    def vocabulary(self, granularity: str) -> tuple[Sequence[str], Any]:
        """None: what was typed is no corpus."""
        raise UsageError(f"Typed captions have no vocabulary of {granularity}.")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
