"""SVI on data that are spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, Generic, ParamSpec

import attrs
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from .._compile._jit import jit
from .._errors import TraceError, describe
from ..ensemble._failed import lenient
from ..infer import SVI, SVIRunResult, SVIState
from ..infer.svi._progress import LOGGER
from ..random import Key
from ._communicator import Link, link_of
from ._consistency import of_leaves, require_alike
from ._data_parallel_svi import Averaged, Pieces, averaging

P = ParamSpec("P")


def _fast(parallel: DataParallel[Any]) -> Pieces:
    plain = parallel._plain
    gradients: Callable[..., Any] = plain.gradients
    descended: Callable[..., Any] = plain.descended
    return Pieces(jit(gradients), jit(descended))


def _plain(parallel: DataParallel[Any]) -> Pieces:
    # Numbers that are not finite must come to all ranks alike, so none may raise by itself.
    return Pieces(lenient(parallel.svi)._gradients, parallel.svi._descended)


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

    Example:
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
    # Not settings: the two pieces of its steps, as they are and compiled.
    _plain: Pieces = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_plain, takes_self=True)
    )
    _fast: Pieces = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_fast, takes_self=True)
    )

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
        link = link_of(self.mesh)
        with link.together():
            return self._of(link, self._plain).init(key, *args, **kwargs)

    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of all ranks; returns the new state and the loss of all rows before it."""
        link = link_of(self.mesh)
        with link.together():
            return self._of(link, self._plain).step(state, *args, **kwargs)

    def run(self, key: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs) -> SVIRunResult:
        """Initialise from ``key`` and take ``num_steps`` steps; see :meth:`SVI.run`.

        Raises:
            SupportError: on all ranks, if a loss is not finite, unless ``on_nonfinite`` is set; it
                names the rank and the site.
            RankError: as for :meth:`init`; also if a rank is lost in the run.
        """
        return self._taken(num_steps, lambda svi: svi.run(key, num_steps, *args, **kwargs))

    def run_from(
        self, state: SVIState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> SVIRunResult:
        """:meth:`run`, going on from a state: of another run, or of a checkpoint."""
        return self._taken(num_steps, lambda svi: svi.run_from(state, num_steps, *args, **kwargs))

    def fit(self, key: Key, batches: Iterable[object], /, *, epochs: int = 1) -> SVIRunResult:
        """Initialise on the first batch, and take a step for each; see :meth:`SVI.fit`.

        Args:
            key: The same on every rank.
            batches: Batches of this rank's rows, as many as every other rank has.
            epochs: How often to go through ``batches``.
        """
        return self._fitted(
            {}, batches, epochs, lambda svi: svi._fit(key, None, batches, self.data_size, epochs)
        )

    def fit_from(
        self, state: SVIState, batches: Iterable[object], /, *, epochs: int = 1
    ) -> SVIRunResult:
        """:meth:`fit`, going on from a state."""
        return self._fitted(
            of_leaves("state", state),
            batches,
            epochs,
            lambda svi: svi._fit(state.key, state, batches, self.data_size, epochs),
        )

    def _of(self, link: Link, pieces: Pieces) -> Averaged[P]:
        return averaging(self.svi, link, pieces, self.data_size)

    def _taken(
        self, num_steps: int | None, take: Callable[[Averaged[P]], SVIRunResult]
    ) -> SVIRunResult:
        link = link_of(self.mesh)
        with link.together():
            if self.svi._compiles(num_steps):
                try:
                    return take(self._of(link, self._fast))
                except TraceError as error:  # on all ranks: their graphs are the same
                    if self.svi.compiled:
                        raise
                    LOGGER.warning("SVI: the steps of this run are not compiled. %s", error)
            return take(self._of(link, self._plain))

    def _fitted(
        self,
        found: dict[str, str],
        batches: Iterable[object],
        epochs: int,
        take: Callable[[Averaged[P]], SVIRunResult],
    ) -> SVIRunResult:
        count = len(batches) if isinstance(batches, Sized) else None

        def fit(svi: Averaged[P]) -> SVIRunResult:
            steps = f"{epochs} epochs of {describe(count)} batches"
            require_alike(svi.link, {"call": "DataParallel.fit", "num_steps": steps, **found})
            result = take(svi)
            # Who waits in a step for one that has no batch left sees that it is here.
            svi.link.exchange("end of fit")
            return result

        return self._taken(None if count is None else count * epochs, fit)
