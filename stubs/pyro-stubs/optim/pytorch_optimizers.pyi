from collections.abc import Mapping
from typing import Any

from pyro.optim.lr_scheduler import PyroLRScheduler
from pyro.optim.optim import PyroOptim, _Args

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "Muon",
    "NAdam",
    "OneCycleLR",
    "PolynomialLR",
    "RAdam",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rprop",
    "SequentialLR",
    "SparseAdam",
    "StepLR",
]

def ASGD(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def Adadelta(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def Adafactor(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def Adagrad(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def Adam(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def AdamW(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def Adamax(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def ChainedScheduler(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def ConstantLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def CosineAnnealingLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def CosineAnnealingWarmRestarts(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def CyclicLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def ExponentialLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def LRScheduler(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def LambdaLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def LinearLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def MultiStepLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def MultiplicativeLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def Muon(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def NAdam(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def OneCycleLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def PolynomialLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def RAdam(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def RMSprop(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def ReduceLROnPlateau(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def Rprop(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def SGD(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def SequentialLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
def SparseAdam(optim_args: _Args, clip_args: _Args | None = None) -> PyroOptim: ...
def StepLR(
    optim_args: Mapping[str, Any], clip_args: Mapping[str, Any] | None = None
) -> PyroLRScheduler: ...
