from typing import Any

from pyro.optim.optim import PyroOptim

class HorovodOptimizer(PyroOptim):
    def __init__(self, pyro_optim: PyroOptim, **horovod_kwargs: Any) -> None: ...
