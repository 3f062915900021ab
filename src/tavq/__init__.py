"""Text-aligned image tokenizers."""

__version__ = "0.1.0"
