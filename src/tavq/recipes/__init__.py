"""Shipped settings, one YAML file a recipe."""
