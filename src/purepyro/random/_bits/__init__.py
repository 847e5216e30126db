"""Random bits and the values made of them: Philox4x32-10 and its words."""
