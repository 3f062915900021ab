"""Formats of other projects, one file each; every registered class is a `--to` of `tavq data export`."""
