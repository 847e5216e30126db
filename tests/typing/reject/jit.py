"""Mistakes in the arguments of jitted functions."""

from __future__ import annotations

import torch
import torchopt
from torch import Tensor

from purepyro import Module, PyroParam, jit, random
from purepyro.infer import SVI, AutoNormal


class Line(Module):
    slope = PyroParam(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x


@jit
def plain(x: Tensor, *, scale: float = 1.0) -> Tensor:
    return scale * x


model, key, x = Line(), random.key(0), torch.ones(3)
svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
state = svi.init(key, x)

# A missing, wrong, misspelled or additional argument.
plain()  # E: mypy[call-arg] pyright[reportCallIssue]
plain(3)  # E: mypy[arg-type] pyright[reportArgumentType]
plain(x, 2.0)  # E: mypy[call-arg] pyright[reportCallIssue]
plain(x, sacle=2.0)  # E: mypy[call-arg] pyright[reportCallIssue]
plain(x, scale="2")  # E: mypy[arg-type] pyright[reportArgumentType]
jit(svi.step)(state)  # E: mypy[call-arg] pyright[reportCallIssue]
jit(svi.step)(x, x)  # E: mypy[arg-type] pyright[reportArgumentType]
jit(svi.step)(state, 3)  # E: mypy[arg-type] pyright[reportArgumentType]

# Another result.
number: int = plain(x)  # E: mypy[assignment] pyright[reportAssignmentType]
plain.cache_infos()  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

# No function, and options that are none.
# E: mypy[call-overload] pyright[reportArgumentType]
jit(x)
# E: mypy[call-overload] pyright[reportArgumentType]
jit(plain, max_specializations="many")
guide, optim = AutoNormal(model), torchopt.adam(0.1)
SVI(model, guide, optim, compiled="yes")  # E: mypy[arg-type] pyright[reportArgumentType]
