"""Ours, its peers and the incumbent's arrangement side by side: time as ratios of interleaved runs, and peak memory."""
