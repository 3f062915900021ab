"""A BERT of three thousand numbers, and the real MiniLM where it is installed."""

from pathlib import Path

import pytest
import torch

from tavq.core.errors import UsageError
from tavq.text.encoders import TextEncoder, load_encoder

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
WORDS = "a red blue car dog ##gy soup bowl of the cat ##s . ,"
VOCABULARY = f"{SPECIAL} {WORDS}".split()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of width 8 and room for 16 tokens."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_bert: Path) -> TextEncoder:
    return load_encoder(tiny_bert)


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    try:
        return load_encoder("minilm")
    except UsageError as error:
        pytest.skip(str(error))
