"""The durable, ordered log, the only thing roles share: in memory or in SQLite."""
