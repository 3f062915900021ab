"""Training a task on the codes of a frozen tokenizer."""
