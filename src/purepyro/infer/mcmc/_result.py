"""What a run of chains gives back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..predict._arviz import InferenceData, import_arviz
from ._diagnostics import Summary, summarize
from ._state import MCMCState


class MCMCResult(NamedTuple):
    """What ``MCMC.run()`` returns.

    Attributes:
        state: The chains after their last transition, along a first dimension; complete, to be
            saved, or to go on from by ``MCMC.run_from()``.
        samples: Values of latent and deterministic sites, (chains, draws, ...), constrained.
        stats: What each transition was like, (chains, draws), by ArviZ's names: the fields of
            ``MCMCInfo``.
        warnings: What the run shows to be wrong with it, in words.

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import MCMC, NUTS
        >>> kernel = NUTS(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))
        >>> mcmc = MCMC(kernel, num_warmup=20, num_samples=10, num_chains=2)
        >>> result = mcmc.run(random.key(0))
        >>> result.samples["z"].shape, result.get_samples()["z"].shape
        (torch.Size([2, 10]), torch.Size([20]))
    """

    state: MCMCState
    samples: dict[str, Tensor]
    stats: dict[str, Tensor]
    warnings: tuple[str, ...] = ()

    def get_samples(self, *, group_by_chain: bool = False) -> dict[str, Tensor]:
        """The draws by site: (draws, ...), of one chain after the other, as ``Predictive`` takes.

        Args:
            group_by_chain: Whether chains keep a dimension of their own: (chains, draws, ...).
        """
        if group_by_chain:
            return self.samples
        return {name: value.flatten(0, 1) for name, value in self.samples.items()}

    def summary(self, prob: float = 0.9) -> Summary:
        """Mean, spread and accuracy of the draws of each site, as a table.

        Args:
            prob: The probability of the central interval between the two outer quantiles.
        """
        return summarize(self.samples, prob)

    def to_inference_data(self) -> InferenceData:
        """Draws and statistics as ArviZ's container; ArviZ is an extra, ``purepyro[arviz]``."""
        arviz = import_arviz()
        groups = {
            "posterior": {name: value.cpu().numpy() for name, value in self.samples.items()},
            "sample_stats": {name: value.cpu().numpy() for name, value in self.stats.items()},
        }
        if int(arviz.__version__.split(".")[0]) < 1:
            return arviz.from_dict(**groups)
        return arviz.from_dict(groups)
