"""Long texts of images by a vision-language model: in this process, or asked of a server."""

PROMPT = "Analyze the image in a comprehensive and detailed manner"
"""What the model is asked. Source: TA-VQ (arXiv 2503.01261), section 3.2, step 1."""
