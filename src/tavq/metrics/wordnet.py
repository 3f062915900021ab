"""WordNet 3.0 through NLTK, from local files: nothing is ever downloaded."""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from tavq.core.errors import FileError

FILES = ("lexnames", "index.sense", *(f"{kind}.{part}" for kind in ("data", "index") for part in ("noun", "verb")))
"""Some of WordNet's files, by which a complete folder is recognized."""

HOW = (
    "give a folder with corpora/wordnet (--nltk-data), from NLTK's data or from the files of Debian's packages "
    "wordnet-base and wordnet-sense-index, copied (no links), with NLTK's file lexnames"
)


@lru_cache(maxsize=4)
def open_wordnet(nltk_data: Path | None = None) -> Any:
    """NLTK's reader of the WordNet in `nltk_data`/corpora/wordnet; by default in NLTK's own folders.

    Raises:
        FileError: WordNet is missing or incomplete.
    """
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    folders = [nltk_data] if nltk_data is not None else list(map(Path, nltk.data.path))
    found = next((folder / "corpora/wordnet" for folder in folders if (folder / "corpora/wordnet").is_dir()), None)
    if found is None:
        raise FileError(f"WordNet was not found in {nltk_data or 'the folders of NLTK'}; {HOW}.")
    missing = [name for name in FILES if not (found / name).is_file()]
    if missing:
        raise FileError(f"{found} lacks WordNet's file {missing[0]!r}; {HOW}.")
    if nltk_data is not None and str(nltk_data) not in nltk.data.path:
        nltk.data.path.append(str(nltk_data))  # NLTK reads nothing outside of its folders
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other languages, which nothing here asks for
        return WordNetCorpusReader(str(found), None)
