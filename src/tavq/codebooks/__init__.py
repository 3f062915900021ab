"""Codebooks: where entries come from. One registered class a file; tables.py and anchors.py are shared."""
