"""The shards of a folder data set (`--shard 1/8`), for work on several machines; not WebDataset's shards."""

import re
from dataclasses import dataclass

from tavq.core.errors import UsageError
from tavq.data.records import hash_name


@dataclass(frozen=True)
class Shard:
    """Shard `number` (from 1) of `of`; an image's shard depends on its name only, so added images move no others."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """The shard that `--shard` names: `2/8` is the second of eight, None is all images."""
        found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", "1/1" if text is None else text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard must be i/n with i from 1 to n, such as 1/8; got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def add_suffix(self, name: str) -> str:
        """The file or folder name of this shard's part: `text-2-of-8`; `name` itself if there is one shard."""
        return name if self.of == 1 else f"{name}-{self.number}-of-{self.of}"

    def __contains__(self, file_name: str) -> bool:
        return self.of == 1 or hash_name(file_name) % self.of == self.number - 1


ALL_IMAGES = Shard()
