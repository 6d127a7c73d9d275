"""Data sets: where they come from, how they are fetched, checked and loaded."""
