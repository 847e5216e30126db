"""What is left of purepyro where torch or Pyro lacks one of the private names that it looks up.

A script. It reads names from its standard input, a line each, such as ``torch._C:_pop_mode``.
Each is tried in a process of its own, forked before purepyro is imported: the name is deleted from
where it is, purepyro is imported, torch and Pyro get it back, and the library is used. The output
has a line for each name, and one before them with nothing deleted: the name, and what came of each
use as JSON, which is its result, ``refused`` (by the error that says so), or another error.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer
import torch
import torch.fx.experimental.proxy_tensor
import torch.fx.experimental.symbolic_shapes
import torch.utils._cxx_pytree
import torchopt

warnings.simplefilter("ignore")
torch.set_num_threads(1)

Uses = dict[str, Callable[[], object]]


def hide(path: str) -> Callable[[], None]:
    """Take a name away; gives what puts it back for torch and Pyro, and not for purepyro."""
    module, _, name = path.partition(":")
    found, resolve = pkgutil.resolve_name(path), pkgutil.resolve_name

    def resolve_others(asked: str) -> object:
        if asked == path:
            raise AttributeError(path)
        return resolve(asked)

    vars(pkgutil)["resolve_name"] = resolve_others
    if not name:
        sys.modules[module] = None  # type: ignore[assignment]
        return lambda: sys.modules.update({module: found})
    inner, _, last = name.rpartition(".")
    owner = resolve(f"{module}:{inner}")
    kept = vars(owner).get(last, found)
    try:
        delattr(owner, last)
    except AttributeError:  # an operator, which is made when it is asked for
        return lambda: None
    return lambda: setattr(owner, last, kept)


def uses() -> Uses:
    """Uses of the library, each of which gives tensors."""
    purepyro: Any = import_module("purepyro")
    infer: Any = import_module("purepyro.infer")
    random = purepyro.random
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))

    def model(x: torch.Tensor) -> torch.Tensor:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, scale))
        with pyro.plate("rows", len(x)):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=x)
        return mean

    def mixture(x: torch.Tensor) -> None:
        means = pyro.param("means", torch.tensor([-1.0, 1.0]))
        with pyro.plate("rows", len(x)):
            which = pyro.sample("which", dist.Categorical(torch.ones(2)))
            pyro.sample("obs", dist.Normal(means[which], 1.0).mask(x > 0), obs=x)

    def nothing(x: torch.Tensor) -> None:
        """A guide of no sites."""

    x = torch.linspace(-1.0, 2.0, 6)

    def key() -> object:
        return random.key(0)

    def trained() -> object:
        svi = infer.SVI(model, infer.AutoNormal(model), torchopt.adam(1e-2), infer.Trace_ELBO())
        with purepyro.disable_jit():
            return svi.run(key(), 3, x).losses

    def summed() -> object:
        loss = infer.TraceEnum_ELBO(max_plate_nesting=1)
        marked = pyro.infer.config_enumerate(mixture)
        return loss.loss(marked, nothing, purepyro.init(marked, key(), x), key(), x)

    def computed() -> object:
        lifted = purepyro.lift(net)
        return purepyro.apply(lifted, purepyro.init(lifted, key()), key(), torch.ones(4, 2))

    def drawn(fn: dist.TorchDistribution) -> Callable[[], object]:
        return lambda: random.sample(key(), fn)

    params = {"scale": torch.tensor(0.3)}
    eye = torch.eye(2)
    return {
        "uniform": lambda: random.uniform(key(), 3),
        "apply": lambda: purepyro.apply(model, params, key(), x),
        "keys": lambda: torch.vmap(lambda one: purepyro.apply(model, params, one, x))(
            random.split(key(), 3)
        ),
        "gradient": lambda: torch.func.grad(lambda given: purepyro.apply(model, given, key(), x))(
            params
        ),
        "network": computed,
        "trained": trained,
        "summed": summed,
        "graph": lambda: (
            import_module("purepyro._compat._tracing")
            .graph_of(lambda t: [t * 2], [torch.ones(3)])
            .code
        ),
        "gamma": lambda: torch.func.grad(lambda c: random.sample(key(), dist.Gamma(c, 1.0)).sum())(
            torch.tensor([2.0])
        ),
        "dirichlet": drawn(dist.Dirichlet(torch.ones(3))),
        "normal": drawn(dist.MultivariateNormal(torch.zeros(2), eye)),
        "omt": drawn(dist.OMTMultivariateNormal(torch.zeros(2), eye)),
        "avf": drawn(dist.AVFMultivariateNormal(torch.zeros(2), eye, torch.ones(2, 1, 2))),
        "mixture": drawn(
            dist.MixtureOfDiagNormals(torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2))
        ),
        "shared": drawn(
            dist.MixtureOfDiagNormalsSharedCovariance(
                torch.zeros(2, 2), torch.ones(2), torch.zeros(2)
            )
        ),
        "scales": drawn(dist.GaussianScaleMixture(torch.ones(2), torch.zeros(2), torch.ones(2))),
        "hmm": drawn(
            dist.DiscreteHMM(
                torch.zeros(2), torch.zeros(2, 2), dist.Normal(torch.zeros(2), 1.0), duration=3
            )
        ),
        "pool": lambda: _pooled(random.keyed(key())),
    }


def _pooled(block: AbstractContextManager[object]) -> object:
    with block:
        return torch.nn.functional.fractional_max_pool2d(
            torch.arange(36.0).reshape(1, 1, 6, 6), 2, output_size=3
        )


def outcomes(path: str) -> dict[str, str]:
    """What comes of each use without a name, or with all if it is empty."""
    put_back = hide(path) if path else lambda: None
    try:
        import_module("purepyro.infer")
    finally:
        put_back()
    refusal: Any = import_module("purepyro._errors").UnsupportedVersionError
    found = {}
    for name, use in uses().items():
        try:
            found[name] = repr(_plain(use()))
        except refusal:
            found[name] = "refused"
        except Exception as error:  # what this script is there to find
            found[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return found


def _plain(result: object) -> object:
    if isinstance(result, dict):
        return {name: _plain(each) for name, each in result.items()}
    return result.tolist() if isinstance(result, torch.Tensor) else result


def in_child(path: str) -> str:
    """The outcomes for a name as JSON, from a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            text = json.dumps(outcomes(path))
        except BaseException as error:  # the parent is to see it
            text = json.dumps({"import": f"{type(error).__name__}: {error}"})
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


if __name__ == "__main__":
    for each in ("", *sys.stdin.read().split()):
        print(each, in_child(each), sep="\t", flush=True)
