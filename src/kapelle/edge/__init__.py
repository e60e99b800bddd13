"""The edge agent: runs beside devices, keeps what they say while the plant is away."""
