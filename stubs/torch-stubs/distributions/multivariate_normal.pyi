from torch import Tensor
from torch.distributions.distribution import Distribution

class MultivariateNormal(Distribution):
    loc: Tensor
    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def scale_tril(self) -> Tensor: ...
    @property
    def covariance_matrix(self) -> Tensor: ...
    @property
    def precision_matrix(self) -> Tensor: ...
