"""Rules that choose entries: nearest, gumbel (more to come). One registered class a file."""
