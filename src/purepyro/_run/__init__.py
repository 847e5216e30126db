"""Pure runs of a model: ``init``, ``apply``, ``trace``, ``log_density``, ``describe``."""
