"""What is measured: images, codes, text alignment."""
