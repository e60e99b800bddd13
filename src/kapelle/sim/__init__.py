"""Simulated devices, links and time; drives `app` unchanged."""
