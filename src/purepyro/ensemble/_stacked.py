"""What an ensemble carries along and gives back: plain tuples of tensors, members first."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..infer import SVIState


class EnsembleState(NamedTuple):
    """All members of an ensemble: a pytree of tensors whose first dimension is the member.

    Attributes:
        svi: The members' states of SVI, stacked.
        members: The members' settings, such as learning rates, if they differ; else empty.
        quarantined_at: For each member the step whose loss or gradient was not finite, since when
            the member stays as it was; -1 while it is alive.

    Example:
        >>> import torchopt
        >>> from purepyro import Ensemble, random
        >>> from purepyro.infer import SVI
        >>> ensemble = Ensemble(SVI(lambda: None, lambda: None, torchopt.adam(0.1)))
        >>> state = ensemble.init(random.split(random.key(0), 3))
        >>> state.alive
        tensor([True, True, True])
        >>> state.svi.step
        tensor([0, 0, 0])
    """

    svi: SVIState
    members: object
    quarantined_at: Tensor

    @property
    def alive(self) -> Tensor:
        """Which members are not quarantined, bool, of shape ``(members,)``."""
        return self.quarantined_at < 0


class EnsembleRunResult(NamedTuple):
    """What :meth:`Ensemble.run` returns.

    Attributes:
        state: The state after the last step.
        losses: The loss of every step and member, of shape ``(num_steps, members)``; that of the
            step which put a member in quarantine is what it was, those after it are nan.

    Example:
        >>> import torchopt
        >>> from purepyro import Ensemble, random
        >>> from purepyro.infer import SVI
        >>> ensemble = Ensemble(SVI(lambda: None, lambda: None, torchopt.adam(0.1)))
        >>> result = ensemble.run(random.split(random.key(0), 3), 2)
        >>> result.losses.shape, result.quarantined
        (torch.Size([2, 3]), {})
    """

    state: EnsembleState
    losses: Tensor

    @property
    def quarantined(self) -> dict[int, int]:
        """The members in quarantine, each with the step that put it there; waits for the device."""
        steps: list[int] = self.state.quarantined_at.tolist()
        return {member: step for member, step in enumerate(steps) if step >= 0}
