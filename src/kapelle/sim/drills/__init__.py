"""Drills: what an operator wants to have seen before it happens, played and judged."""
