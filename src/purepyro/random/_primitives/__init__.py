"""Keyed versions of torch's own random functions."""
