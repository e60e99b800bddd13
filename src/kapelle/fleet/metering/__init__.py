"""Energy from cumulative registers, in whole milliwatt-hours."""
