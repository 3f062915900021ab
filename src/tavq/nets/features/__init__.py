"""Frozen networks whose features measure images."""
