"""Pretrained networks whose features measure images; their weights are frozen."""
