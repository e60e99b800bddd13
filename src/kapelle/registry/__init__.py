"""Sites, devices and resources in SQL; changes reach the journal through an outbox."""
