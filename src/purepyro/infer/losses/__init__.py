"""Losses: the evidence lower bound and its relatives."""
