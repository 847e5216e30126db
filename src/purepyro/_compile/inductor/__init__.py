"""Inductor, torch's compiler: how it is called, and what of its C++ is written anew."""
