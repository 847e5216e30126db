"""Markov chain Monte Carlo."""

from ._diagnostics import SiteSummary, Summary, summarize

__all__ = ["SiteSummary", "Summary", "summarize"]
