"""Looks ahead over the intervals of a profile, so that the last is met as well as the first."""
