"""A folder data set in parts (`--shard 1/8`), so that several machines work on it; WebDataset's are another matter."""

import re
from dataclasses import dataclass

from tavq.core.errors import UsageError
from tavq.data.records import hash_name


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of a data set, by the hash of the image's name, so that more images move none."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """`2/8` is the second of eight; None is the whole."""
        found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", "1/1" if text is None else text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text!r} is not a shard; give i/n with i from 1 to n, such as 1/8.")
        return cls(int(found[1]), int(found[2]))

    def add_suffix(self, whole: str) -> str:
        """What the part of `whole` is called that this shard makes; `whole` itself where there is one part."""
        return whole if self.of == 1 else f"{whole}-{self.number}-of-{self.of}"

    def __contains__(self, file_name: str) -> bool:
        return self.of == 1 or hash_name(file_name) % self.of == self.number - 1


ALL_IMAGES = Shard()
