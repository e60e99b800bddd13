"""Desired against observed: who follows, who does not, and what is wrong with whom."""
