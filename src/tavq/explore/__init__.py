"""What codes mean, and whether that is true: statistics of codes and words, edits of codes, and a server for both."""
