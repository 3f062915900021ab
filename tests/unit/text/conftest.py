"""A BERT of three thousand weights, and the real MiniLM if it is installed."""

from pathlib import Path

import pytest
from tiny_bert import write_bert

from tavq.core.errors import UsageError
from tavq.text.encoders import TextEncoder, load_encoder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of width 8 and room for 16 tokens."""
    return write_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny(tiny_bert: Path) -> TextEncoder:
    return load_encoder(tiny_bert)


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    try:
        return load_encoder("minilm")
    except UsageError as error:
        pytest.skip(str(error))
