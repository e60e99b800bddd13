"""Sparkplug B 3.0 host: edge nodes and devices behind a broker the user already runs."""
