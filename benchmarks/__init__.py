"""One question per file: `run(quick)` answers in numbers, with what to hold them against."""
