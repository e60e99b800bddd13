"""System clock, supervision, metrics, logging set-up."""
