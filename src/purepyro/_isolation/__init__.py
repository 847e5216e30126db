"""A run's own Pyro, and the process as it was when the run is over, however it ends."""
