"""Reads vectors of single words from a text file in the format of GloVe or fastText."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tavq.core.errors import FileError
from tavq.core.files import read_lines, sha256
from tavq.text.encoder_record import EncoderRecord


def read_word_vectors(path: Path, words: Collection[str]) -> tuple[EncoderRecord, dict[str, Float[np.ndarray, " t"]]]:
    """The record of the file, and the vectors of those `words` that it contains; reads it once, line by line.

    A line is a word and its numbers, separated by single spaces; a first line of two numbers (fastText's header) is
    skipped. A word that occurs twice keeps its first vector.

    Source: GloVe (Pennington et al., 2014), the format of the published vectors; VQCT's Table 3 uses them.

    Raises:
        FileError: the line of a wanted word is not a vector, or vectors differ in width.
    """
    found: dict[str, np.ndarray] = {}
    wanted, width = set(words), 0
    for number, line in enumerate(read_lines(path), 1):
        word, *numbers = line.rstrip().split(" ")
        if (number == 1 and len(numbers) == 1) or word not in wanted or word in found:
            continue
        try:
            found[word] = np.array(numbers, np.float32)
        except ValueError as error:
            raise FileError(f"{path} line {number} is not a word and its numbers.") from error
        width = width or len(numbers)
        if len(numbers) != width or not width or not np.isfinite(found[word]).all():
            raise FileError(
                f"{path} line {number} has {len(numbers)} numbers; {width or 'some'} finite ones are needed."
            )
    if not found:
        raise FileError(
            f"{path} contains none of the {len(wanted)} words; word vectors are a text file with one word per line."
        )
    return EncoderRecord(name=path.name, sha256=sha256(path), width=width), found
