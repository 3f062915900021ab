"""Formats of other projects, one file each; every registered class is a choice of `tavq data export --to`."""
