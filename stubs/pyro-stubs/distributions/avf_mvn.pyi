from pyro.distributions.torch import MultivariateNormal
from torch import Tensor

class AVFMultivariateNormal(MultivariateNormal):
    control_var: Tensor
    def __init__(self, loc: Tensor, scale_tril: Tensor, control_var: Tensor) -> None: ...
