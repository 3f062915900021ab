"""Tables of entries: learned, ema, anchored, linear, fixed (more to come). One registered class a file."""
