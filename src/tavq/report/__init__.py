"""Pages to look at: what a run did, how two runs differ, and what the codes of a tokenizer mean."""
