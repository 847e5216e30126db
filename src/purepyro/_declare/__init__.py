"""Modules: what they declare, how they form a tree, and how a changed copy is made."""
