"""Statistics of codes and units of text, from memory-mapped arrays: every number is counted when it is asked for."""
