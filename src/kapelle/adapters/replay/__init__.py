"""Lets rows out of quarantine: what was refused once, decoded again by whoever refused it."""
