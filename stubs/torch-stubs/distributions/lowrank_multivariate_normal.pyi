from torch import Tensor
from torch.distributions.distribution import Distribution

class LowRankMultivariateNormal(Distribution):
    loc: Tensor
    cov_factor: Tensor
    cov_diag: Tensor
    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None: ...
    @property
    def scale_tril(self) -> Tensor: ...
    @property
    def covariance_matrix(self) -> Tensor: ...
    @property
    def precision_matrix(self) -> Tensor: ...
