"""What is done with codes: one registered task a file. Read base.py first."""
