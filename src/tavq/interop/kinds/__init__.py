"""Kinds of checkpoints: one registered class a file."""
