"""Errors, registries, settings and files: what every other room stands on."""
