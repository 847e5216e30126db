"""Guides made from a model."""

from ._normal import AutoNormal

__all__ = ["AutoNormal"]
