"""Errors, registries, settings and files: the base of every other room."""
