"""Alignments of codes with text: TA. One registered class a file."""
