"""What a compiled function captured, and whether it is still the same."""
