"""A BERT of three thousand random weights, as a folder that loads like any other."""

from pathlib import Path

import torch

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
WORDS = "a red blue car dog ##gy soup bowl of the cat ##s . ,"


def write_bert(folder: Path, seed: int = 0, words: str = WORDS) -> Path:
    """Write a BERT of width 8 for up to 16 tokens; the same seed gives the same weights."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = f"{SPECIAL} {words}".split()
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    return folder
