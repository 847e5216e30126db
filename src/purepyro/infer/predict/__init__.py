"""What a fit says: draws of the posterior predictive, log likelihoods, ArviZ."""
