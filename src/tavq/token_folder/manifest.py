"""The manifest of a folder of token shards: which model made them, of what, and the hash of each shard."""

from typing import Literal

from pydantic import Field

from tavq.core.config import Config
from tavq.token_folder.shard import FORMAT as FORMAT
from tavq.token_folder.shard import TokenSettings

MANIFEST = "manifest.json"

KIND: Literal["token shards"] = "token shards"

COMMAND = "tavq encode MODEL DATA --out FOLDER --shard-size N"
"""Makes a folder of token shards."""


class ShardNote(Config):
    """A shard that is finished."""

    file: str
    sha256: str
    bytes: int = Field(ge=0)
    images: int = Field(ge=0)
    missing: int = Field(ge=0)


class Manifest(Config):
    """`manifest.json`. Shards are noted when all are there; until then each proves itself by its own seal."""

    format: Literal[1]
    kind: Literal["token shards"]
    complete: bool
    settings: TokenSettings
    bits: tuple[int, ...]
    """Bits of an index of each part of the codebook."""
    images: int = Field(ge=0)
    missing: int = Field(ge=0)
    """Images that cannot be read."""
    shards: tuple[ShardNote, ...]
