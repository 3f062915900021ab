"""Tasks on the codes of a tokenizer: one registered class a file. Read base.py first."""
