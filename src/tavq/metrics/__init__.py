"""What is measured: pictures, codes, text alignment."""
