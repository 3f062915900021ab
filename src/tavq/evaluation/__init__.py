"""Evaluation of tokenizers, tasks and folders of images, next to baselines."""
