"""Caps of feeders, zones and vendors: the prices that keep them, and what they cost an order."""
