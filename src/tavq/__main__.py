"""`python -m tavq`."""

from tavq.cli import main

main()
