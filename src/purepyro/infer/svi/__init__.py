"""Stochastic variational inference: the pure steps, and the loops around them."""
