"""Images and texts of a collection in one space, kept as an index, and what is nearest in it."""
