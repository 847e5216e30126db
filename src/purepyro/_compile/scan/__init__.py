"""Loops over a pure step as compiled blocks of many steps."""
