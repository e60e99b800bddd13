"""REST for operators and the command line."""
