"""`python -m authwright` is the `authwright` command."""

from authwright.cli import main

main()
