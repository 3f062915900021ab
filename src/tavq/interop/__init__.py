"""Tokenizers of other projects: reading their checkpoints, and the names that they give to our network's tensors."""
