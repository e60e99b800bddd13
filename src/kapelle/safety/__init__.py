"""The independent last hop before any command leaves."""
