"""The parts of a tokenizer's page."""
