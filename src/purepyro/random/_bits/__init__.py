"""Random bits and the numbers made of them: Philox4x32-10 and its words."""
