"""One folder per protocol, all of one shape: codec (pure), link (all I/O), settings."""
