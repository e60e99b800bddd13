"""The live picture of one partition: one NumPy column per field, and how entries change it."""
