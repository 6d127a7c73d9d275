"""Generators of fresh items, a family to a file: each draws an item of a level from a key."""
