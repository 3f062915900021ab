"""Writing WebDataset shards."""

import contextlib
import io
import tarfile
from pathlib import Path


class SampleWriter:
    """Writes samples to `NAME-000000.tar`, `NAME-000001.tar`, ...; the same samples give the same bytes.

    Not atomic: write into a folder that appears only when it is complete (`core.files.create_folder`).

    Args:
        folder: where the shards go.
        name: of the shards.
        size: the number of samples in a shard.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        self.samples = self.shards = 0
        self._open = contextlib.ExitStack()
        self._archive: tarfile.TarFile | None = None

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Add a sample; `members` by their extension without its dot."""
        if self._archive is None or self.samples % self.size == 0:
            self.close()
            path = self.folder / f"{self.name}-{self.shards:06d}.tar"
            self._archive = self._open.enter_context(tarfile.TarFile(path, "w", format=tarfile.PAX_FORMAT))
            self.shards += 1
        for extension, data in members.items():
            member = tarfile.TarInfo(f"{key}.{extension}")  # owner and time stay 0, so that the bytes repeat
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))
        self._archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
        self.samples += 1

    def close(self) -> None:
        """Finish the current shard, if any."""
        self._open.close()
        self._archive = None
