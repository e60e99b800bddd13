"""Acceptance: the whole grid of faults, many seeds a line, held against what is promised."""
