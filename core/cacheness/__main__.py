"""`python -m cacheness`."""

from cacheness.cli import main

main()
