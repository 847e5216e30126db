from torch.distributions.transforms import Transform

__all__ = ["UnitLowerCholeskyTransform"]

class UnitLowerCholeskyTransform(Transform): ...
