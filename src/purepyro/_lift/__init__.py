"""Networks of ``torch.nn`` as Modules, with priors for their parameters."""
