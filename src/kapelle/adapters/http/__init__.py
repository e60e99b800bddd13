"""Bulk telemetry over HTTP: JSON, NDJSON or Arrow; 2xx means durable."""
