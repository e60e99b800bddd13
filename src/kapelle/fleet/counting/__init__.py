"""Which reports came, in what order, and which are missing: marks, gaps, counters that restart."""
