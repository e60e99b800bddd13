"""The durable log: backends, codec, snapshots."""
