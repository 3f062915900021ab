"""Rules that choose entries: nearest (more to come). One registered class a file."""
