from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.distributions.distribution import Distribution

__all__ = ["kl_divergence", "register_kl"]

_P = TypeVar("_P", bound=Distribution)
_Q = TypeVar("_Q", bound=Distribution)

def register_kl(
    type_p: type[_P], type_q: type[_Q]
) -> Callable[[Callable[[_P, _Q], Tensor]], Callable[[_P, _Q], Tensor]]: ...
def kl_divergence(p: Distribution, q: Distribution) -> Tensor: ...
