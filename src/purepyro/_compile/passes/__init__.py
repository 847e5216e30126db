"""Rewrites of a traced graph, each of which leaves its results as they are."""
