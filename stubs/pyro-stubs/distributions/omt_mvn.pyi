from pyro.distributions.torch import MultivariateNormal
from torch import Tensor

class OMTMultivariateNormal(MultivariateNormal):
    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None: ...
