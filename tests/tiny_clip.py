"""A CLIP of a thousand random weights, as a folder that loads like any other."""

from pathlib import Path

import torch


def write_clip(folder: Path, part: str = "both towers", projected_width: int = 8) -> Path:
    """A CLIP of width 8 that reads the letters a to h."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

    letters = [*"abcdefgh", *(f"{letter}</w>" for letter in "abcdefgh")]
    vocabulary = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**sizes, "vocab_size": 18, "max_position_embeddings": 10, "bos_token_id": 16, "eos_token_id": 17}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if part == "text tower alone":
            CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder)
        else:
            vision = {**sizes, "image_size": 4, "patch_size": 4}
            config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projected_width)
            CLIPModel(config).save_pretrained(folder)
    CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=10).save_pretrained(folder)
    return folder
