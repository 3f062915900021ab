"""Long descriptions of images by a vision-language model, in this process or behind a server."""

PROMPT = "Analyze the image in a comprehensive and detailed manner"
"""The instruction to the model. Source: TA-VQ (arXiv 2503.01261), section 3.2, step 1."""
