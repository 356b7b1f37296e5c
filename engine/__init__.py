"""Gradwire's engine: a small compiler from expression graphs to NumPy, with derivatives as graph transforms."""
