"""What is private or untyped in torch and Pyro, with a typed face."""
