"""Simulated devices as real network peers, in a process of their own."""
