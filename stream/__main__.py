"""`python -m stream` is `drift`."""

from stream.cli import main

main()
