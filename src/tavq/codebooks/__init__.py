"""Tables of entries: learned (more to come: anchored, transferred). One registered class a file."""
