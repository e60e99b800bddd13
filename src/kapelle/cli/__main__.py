"""`python -m kapelle.cli` is `kapelle`."""

from kapelle.cli import main

main()
