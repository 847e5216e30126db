"""Keyed versions of the distributions whose own code cannot be redirected."""
