"""One file per step; never edited once released."""
