"""What is installed, usable and fast on a machine."""
