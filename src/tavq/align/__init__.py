"""Aligners: losses that pull quantized grids towards text. One registered class a file."""
