"""Tiny copies of published data sets, for the tests of their readers."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tavq.data.folder import FolderDataset, check_dataset
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources


def jpeg(number: int = 0, width: int = 16, height: int = 12, orientation: int = 1) -> bytes:
    """An image whose colour tells which one it is, with an EXIF orientation."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (number, 0, 0)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def png(pixels: Any) -> bytes:
    """Classes or colours as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(folder: Path, files: Mapping[str, Any]) -> Path:
    """Writes files by their relative names: bytes and texts as they are, anything else as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(content)
    return folder


def pack(path: Path, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    """Writes a tar or zip file, as its name says; of pairs a name may come twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = files.items() if isinstance(files, Mapping) else files
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in pairs:
                archive.writestr(name, data)
        return path
    kind = next((kind for kind in ("gz", "bz2", "xz") if path.name.endswith(kind)), "")
    with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name, data in pairs:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def imported(kind: str, source: Path, out: Path, **settings: Any) -> tuple[ImportSummary, list[Record]]:
    """What an import tells and what it wrote, in which `tavq data check` finds no fault."""
    summary = sources[kind]().run(source, out, **settings)
    assert check_dataset(out) == []
    return summary, list(FolderDataset(out))
