"""Pyro's own programs, run with our losses in place of Pyro's. See ``__main__``."""
