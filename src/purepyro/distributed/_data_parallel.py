"""SVI on data that are spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from functools import cached_property
from typing import Generic, ParamSpec, TypeVar

import attrs
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from .._errors import TraceError, describe
from ..infer import SVI, SVIRunResult, SVIState
from ..infer.svi._arguments import check_count
from ..infer.svi._compiled_run import is_compiled
from ..infer.svi._nonfinite import Batch
from ..infer.svi._progress import LOGGER
from ..random import Key
from ._communicator import connected
from ._consistency import of_leaves, require_alike
from ._data_parallel_steps import Halves, ParallelFit, compiled_halves_of, halves_of

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class DataParallel(Generic[P]):
    """SVI of one model on rows that are spread over the ranks of a job.

    Every rank calls the same methods, with the same key and with rows of its own. Each step is one
    of SVI on the rows of all: each rank takes the gradient on its own, scaled to the full data set
    by the model's plate, and goes along the mean of all, weighted by their rows (those of the first
    tensor). So parameters, optimiser and key are the same on all ranks, to the bit, and the
    parameters are those of a single process with all rows, up to rounding.

    The guide draws with the same noise on all ranks. That is what makes the mean right for latent
    sites that all rows share; those that each row has of its own get the same noise on each rank
    too, so that their gradients are right on average, but are not those of a single process.

    Attributes:
        svi: The fit. Its model must scale its rows to the full data set, by ``pyro.plate("data",
            data_size, subsample_size=len(x))``. Its callback is called on every rank. A loss that
            is not finite on one rank is so on all, and is treated as it is in a single process.
        data_size: How many rows the full data set has, over all ranks, to check the scale with.
            ``None``: do not check, the scale is right already.
        mesh: The processes that have rows, in one dimension; ``None``: all.

    Source: ``torch.nn.parallel.DistributedDataParallel``; ``jax.lax.pmean`` of gradients.

    Examples:
        >>> import torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.distributed import DataParallel, start
        >>> from purepyro.infer import SVI, AutoNormal
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", 100, subsample_size=len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        >>> with start():  # by torchrun on many processes, by python on one
        ...     rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        ...     y = torch.linspace(1.0, 3.0, 100)[rank::size]
        ...     state, losses = DataParallel(svi, data_size=100).run(random.key(0), 200, y)
        >>> bool((state.params["locs.loc"] - 2.0).abs() < 0.3), losses.shape
        (True, torch.Size([200]))
    """

    svi: SVI[P]
    data_size: int | None = attrs.field(kw_only=True)
    mesh: DeviceMesh | None = attrs.field(default=None, kw_only=True)

    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> SVIState:
        """The state before the first step, the same on all ranks.

        Args:
            key: The same on every rank.
            *args: Arguments of model and guide, with this rank's rows.
            **kwargs: The same, by name.

        Raises:
            RankError: if the ranks differ in the key, in shapes (but for rows) or starting values,
                or one is gone.
            ShapeError: if the model does not scale its rows to the full data set, or the ranks have
                more rows than that.
        """
        return self._eager(lambda fit: fit.init(key, *args, **kwargs))

    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of all ranks; returns the new state and the loss of all rows before it."""
        return self._eager(lambda fit: fit.step(state, *args, **kwargs))

    def run(self, key: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs) -> SVIRunResult:
        """Initialise from ``key`` and take ``num_steps`` steps; see ``SVI.run()``.

        Raises:
            SupportError: on all ranks, if a loss is not finite, unless ``on_nonfinite`` is set; it
                names the rank and the site.
            RankError: as for ``init()``; also if a rank is lost in the run.
        """

        def run(fit: ParallelFit) -> SVIRunResult:
            check_count(num_steps, "num_steps")
            state = fit.init(key, *args, **kwargs)
            return fit.run_from(state, num_steps, Batch(args, kwargs))

        return self._run(num_steps, run)

    def run_from(
        self, state: SVIState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> SVIRunResult:
        """``run()``, going on from a state: of another run, or of a checkpoint."""
        batch = Batch(args, kwargs)
        return self._run(num_steps, lambda fit: fit.run_from(state, num_steps, batch))

    def fit(self, key: Key, batches: Iterable[object], /, *, epochs: int = 1) -> SVIRunResult:
        """Initialise on the first batch, and take a step for each; see ``SVI.fit()``.

        Args:
            key: The same on every rank.
            batches: Batches of this rank's rows, as many as every other rank has.
            epochs: How often to go through ``batches``.
        """
        return self._fit({}, key, None, batches, epochs)

    def fit_from(
        self, state: SVIState, batches: Iterable[object], /, *, epochs: int = 1
    ) -> SVIRunResult:
        """``fit()``, going on from a state."""
        return self._fit(of_leaves("state", state), state.key, state, batches, epochs)

    def _eager(self, take: Callable[[ParallelFit], T]) -> T:
        """What ``take`` does with a fit of eager steps."""
        with connected(self.mesh) as ranks:
            return take(ParallelFit(self.svi, ranks, halves_of(self.svi), self.data_size))

    def _run(self, steps: int | None, take: Callable[[ParallelFit], SVIRunResult]) -> SVIRunResult:
        """The same for a run of so many steps, which is compiled where it is worth it."""
        if is_compiled(self.svi.compiled, steps):
            with connected(self.mesh) as ranks:
                try:
                    return take(ParallelFit(self.svi, ranks, self._compiled, self.data_size))
                except TraceError as error:  # on all ranks: their graphs are the same
                    if self.svi.compiled:
                        raise
                    LOGGER.warning("SVI: the steps of this run are not compiled. %s", error)
        return self._eager(take)

    @cached_property
    def _compiled(self) -> Halves:
        return compiled_halves_of(self.svi)

    def _fit(
        self,
        compared: dict[str, str],
        key: Key,
        state: SVIState | None,
        batches: Iterable[object],
        epochs: int,
    ) -> SVIRunResult:
        """A fit to batches, of which all ranks must have as many."""
        count = len(batches) if isinstance(batches, Sized) else None

        def run(fit: ParallelFit) -> SVIRunResult:
            steps = f"{epochs} epochs of {describe(count)} batches"
            call = {"call": "DataParallel.fit", "num_steps": steps, **compared}
            require_alike(fit.ranks, call)
            result = fit.run_batches(key, state, batches, epochs)
            # A rank with batches left learns here that this one has none.
            fit.ranks.exchange("end of fit")
            return result

        return self._run(None if count is None else count * epochs, run)
