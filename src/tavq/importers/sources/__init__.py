"""Importers of public data sets, one file each; every registered class is a KIND of `tavq data import`."""
