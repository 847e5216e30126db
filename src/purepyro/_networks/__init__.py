"""Networks of ``torch.nn`` that compute with a run's values."""
