"""Judges of what no grader decides: asked, recorded line by line, held to people's labels."""
