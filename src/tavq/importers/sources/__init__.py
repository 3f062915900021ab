"""Public data sets as they are published, one file each; every registered class is a KIND of `tavq data import`."""
