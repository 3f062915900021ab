"""The text tokenizer of a task: whole words learned from the training texts, or the BPE of a pretrained GPT-2."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.checks import check_unicode
from tavq.core.errors import FileError, UsageError, first_line
from tavq.nets.language import LanguageConfig, gpt2_folder, gpt2_sizes

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
END_TOKENS = (END, "<|endoftext|>")
"""End-of-text tokens: ours, and GPT-2's."""

MAX_WORDS = 20_000
"""Size of a learned vocabulary; rarer words become UNKNOWN."""

FILE = "words.json"
"""The tokenizer's file in a model folder, in the format of the tokenizers library."""

WORD = r"\w+(?:['\u2019-]\w+)*|[^\w\s]"
"""A word (dog's, ice-cream), or a punctuation mark."""

EXTRA_SPACE = re.compile(r" (?=[.,;:!?%)\]}])|(?<=[(\[{]) ")
"""Spaces that nobody writes: before a mark that closes, and after one that opens."""

PRETRAINED_FILES = ("tokenizer.json", "vocab.json")
"""Every pretrained GPT-2 has one of them; without either, transformers makes a tokenizer with an empty vocabulary."""

SHOWN = 40
"""Characters of a text that an error message quotes."""


def has_word(text: str) -> bool:
    """Whether a text holds a letter or digit, and not punctuation alone."""
    return any(map(str.isalnum, text))


class TextTokenizer:
    """Converts texts to token ids and back.

    Attributes:
        size: of its vocabulary, which is the largest id plus one.
        end_id: the end-of-text token.
        pad_id: the padding token; masks exclude it from every loss.
        unknown_id: the token of words outside the vocabulary; None where every text can be encoded.
        suppressed_ids: tokens that must not be generated: padding and unknown.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A pretrained folder may be saved with padding and truncation; batches are padded and cut by the task instead.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a caption that contains the text "<end>" must not end there
        vocabulary = tokenizer.get_vocab()
        self.size: int = max(vocabulary.values(), default=-1) + 1
        end_ids = [vocabulary[name] for name in END_TOKENS if name in vocabulary]
        if not end_ids:
            raise FileError(f"The vocabulary has no end-of-text token; expected one of: {', '.join(END_TOKENS)}.")
        self.end_id: int = end_ids[0]
        self.pad_id: int = vocabulary.get(PAD, self.end_id)
        self.unknown_id: int | None = vocabulary.get(UNKNOWN)
        special = {self.pad_id} if self.unknown_id is None else {self.pad_id, self.unknown_id}
        self.suppressed_ids = sorted(special - {self.end_id})

    @classmethod
    def for_language_model(cls, config: LanguageConfig, texts: Iterable[str]) -> "TextTokenizer":
        """The tokenizer of the pretrained model in `config`, or one trained on `texts` if it names none."""
        if config.pretrained is None:
            return cls.train(texts)
        gpt2_sizes(config.pretrained)  # checked first: another kind of model has another kind of tokenizer
        return cls.from_pretrained(gpt2_folder(config.pretrained))

    @classmethod
    def train(cls, texts: Iterable[str]) -> "TextTokenizer":
        """A lower-case word tokenizer whose vocabulary is the most frequent words and marks of `texts`."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
        special = [PAD, END, UNKNOWN]
        trainer = trainers.WordLevelTrainer(vocab_size=MAX_WORDS, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "TextTokenizer":
        """The tokenizer in the folder of a pretrained GPT-2; FileError if it has none."""
        from tavq.core.pretrained import quiet_transformers

        if not any((folder / name).is_file() for name in PRETRAINED_FILES):
            raise FileError(f"{folder} holds no tokenizer; expected one of: {', '.join(PRETRAINED_FILES)}.")
        with quiet_transformers():
            from transformers import AutoTokenizer

            try:
                return cls(AutoTokenizer.from_pretrained(folder).backend_tokenizer)
            except Exception as error:  # transformers raises a dozen types; each means that it cannot be loaded
                raise FileError(f"{folder} holds no readable tokenizer: {first_line(error)[:300]}") from error

    @classmethod
    def load(cls, folder: Path, vocabulary: int, exact: bool = False) -> "TextTokenizer":
        """The tokenizer that `save` wrote into a model folder.

        Args:
            folder: the model folder.
            vocabulary: rows of the model's embedding.
            exact: require as many tokens as rows; otherwise a pretrained embedding may have unused rows at its end.

        Raises:
            FileError: the file is missing, damaged, or has token ids that the embedding lacks.
        """
        from tokenizers import Tokenizer

        path = folder / FILE
        text = files.read_text(path)
        try:
            tokenizer = cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises plain Exception
            raise FileError(f"{path} is damaged: {first_line(error)[:300]}") from error
        if tokenizer.size > vocabulary or (exact and tokenizer.size < vocabulary):
            raise FileError(f"{path} has {tokenizer.size:,} words and the model was trained with {vocabulary:,}.")
        return tokenizer

    def save(self, folder: Path) -> None:
        """Writes FILE into a model folder."""
        files.write_text(folder / FILE, self._tokenizer.to_str())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without the end token; UsageError where a text is not Unicode."""
        check_unicode(texts)
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, up to the first end token."""
        ids = list(ids)
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        decoded: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        text = " ".join(decoded.split())
        if self._tokenizer.decoder is not None:  # BPE tokens carry their own spaces
            return text
        return EXTRA_SPACE.sub("", text)

    def find_unknown_words(self, what: str, text: str) -> list[str]:
        """The distinct words of a text that are outside the vocabulary, spelled as in the text.

        Raises UsageError if the text is empty or all its words are unknown. `what` names the text in messages:
        "question".
        """
        if not text.strip():
            raise UsageError(f"The {what} is empty; write it in the words of the model's training texts.")
        check_unicode([text])
        # Without NFC, a combining accent would be an offset of its own and be cut off its letter.
        text = unicodedata.normalize("NFC", text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pieces = [(i, text[start:end]) for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)]
        words = [(i, piece) for i, piece in pieces if has_word(piece)]
        unknown = [piece for i, piece in words if i == self.unknown_id]
        if len(unknown) == len(words):
            raise UsageError(
                f"The {what} {text.strip()[:SHOWN]!r} has no word that the model knows; write it in the words of the "
                "model's training texts."
            )
        return list(dict.fromkeys(unknown))

    def check_text(self, what: str, text: str, max_length: int) -> list[str]:
        """Warnings about a text, one line each: its unknown words, and its length if it will be truncated.

        Args:
            what: names the text in messages: "question".
            text: what a user wrote.
            max_length: tokens that the model reads.

        Raises:
            UsageError: the text is empty, or none of the words that will be read is known.
        """
        warnings = [unknown_word_warning(word) for word in self.find_unknown_words(what, text)]
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) <= max_length:
            return warnings
        self.find_unknown_words(what, text[: encoding.offsets[max_length - 1][1]])
        return [*warnings, truncation_warning(what, len(encoding.ids), max_length)]


def unknown_word_warning(word: str) -> str:
    """The warning about one unknown word."""
    return f"The model does not know the word {word[:SHOWN]!r}."


def truncation_warning(what: str, count: int, max_length: int) -> str:
    """The warning about a text of `count` tokens of which `max_length` are read."""
    return f"The {what} has {count} words and marks; the model reads the first {max_length}."
