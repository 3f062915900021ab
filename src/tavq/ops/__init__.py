"""The two hot kernels: the nearest entry and optimal transport."""
