"""TextBlob's own splits, as in the paper; needs three NLTK data packages on this machine."""

from functools import cached_property
from typing import Any

from tavq.core.errors import UsageError
from tavq.text.granularity import Splitter, Units, distinct, splitters
from tavq.text.splitters.pattern import is_word, normalize_spaces
from tavq.text.vocabulary import FUNCTION, QUANTIFIERS

REQUIRED = ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng", "corpora/brown")
VISIBLE_TAGS = ("NN", "JJ", "CD")


@splitters.register("corpora")
class CorporaSplitter(Splitter):
    """TextBlob's sentences, noun phrases and tags; loads in some seconds and is then eight times slower than `pattern`.

    Raises UsageError on the first text if NLTK data is missing, with the names of the missing packages.
    """

    version = "2"

    def split(self, text: str) -> Units:
        if not any(map(str.isalnum, text)):
            return Units()
        blob = self._textblob(text)
        sentences = (normalize_spaces(str(sentence)) for sentence in blob.sentences)
        words = (
            word.lower()
            for word, tag in blob.tags
            if word[:1].isalnum() and word.lower() not in FUNCTION and is_word(word)
            if tag.startswith(VISIBLE_TAGS) or word.lower() in QUANTIFIERS
        )
        phrases = (normalize_spaces(str(phrase)).lower() for phrase in blob.noun_phrases)
        long_phrases = distinct(phrase for phrase in phrases if " " in phrase)
        real_sentences = distinct(sentence for sentence in sentences if any(map(str.isalnum, sentence)))
        return Units(distinct(words), long_phrases, real_sentences)

    @cached_property
    def _textblob(self) -> Any:
        import nltk
        from textblob import TextBlob

        missing = [name.rpartition("/")[2] for name in REQUIRED if not _is_installed(nltk.data, name)]
        if missing:
            raise UsageError(
                f"The splitter 'corpora' needs NLTK data that is not installed: {', '.join(missing)} "
                f"(searched: {', '.join(nltk.data.path)}). Run `python -m textblob.download_corpora`, or use the "
                "splitter 'pattern', which needs no data."
            )
        return TextBlob


def _is_installed(data: Any, name: str) -> bool:
    for variant in (name, f"{name}.zip"):
        try:
            data.find(variant)
        except (LookupError, ValueError, OSError):
            continue
        return True
    return False
