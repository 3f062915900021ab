"""Long text: splitting, encoding, and the store that holds each distinct unit once."""
