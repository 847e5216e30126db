"""From a Python function to a compiled graph: trace, tidy, guard, compile, call."""
