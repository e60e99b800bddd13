"""Firm capacity: what can be promised over a window, and with which probability."""
