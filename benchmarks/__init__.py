"""One question per file; each has `run(quick)` that answers with numbers and what to hold them against."""
