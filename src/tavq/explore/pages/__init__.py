"""Answers from statistics, images and models: one function for each page of the explorer."""
