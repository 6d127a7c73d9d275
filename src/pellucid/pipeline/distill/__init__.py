"""Ways to teach a student at equal compute: what they share, each of them, and their table."""
