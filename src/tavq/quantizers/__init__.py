"""Quantizers: how entries are chosen. One registered class a file; lattices.py and parts.py are shared."""
