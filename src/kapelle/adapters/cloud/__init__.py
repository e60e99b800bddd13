"""Devices behind vendors' clouds: polled and commanded over HTTPS, reported by webhooks."""
