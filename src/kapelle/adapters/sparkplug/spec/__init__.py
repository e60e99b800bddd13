"""The payload of Sparkplug B, from the specification's table of fields."""
