"""Telemetry on its way to the journal: checked, stamped, batched; the unusable quarantined."""
