"""A folder with a GPT-2 of a few thousand random weights and a small BPE tokenizer of its own."""

from pathlib import Path
from typing import Any

import torch

TEXTS = ["A red barn beside a lake.", "There is a green barn.", "A blue house on a hill, under clouds."]


def write_gpt2(folder: Path, seed: int = 0, positions: int = 48, extra: int = 3, **settings: Any) -> Path:
    """Writes a GPT-2 of width 16; the same seed gives the same weights.

    Args:
        folder: where to write it.
        seed: of the weights.
        positions: maximum sequence length.
        extra: unused rows of the embedding after the last token.
        settings: further settings of its config.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|endoftext|>")
    config = GPT2Config(
        vocab_size=size + extra,
        n_positions=positions,
        n_layer=1,
        n_head=2,
        n_embd=16,
        bos_token_id=end,
        eos_token_id=end,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder
