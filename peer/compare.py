"""One program under both: values and gradients of a loss, at the same draws and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import pyro
import pyro.infer
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import runtime
from torch import Tensor

import purepyro.infer
from purepyro import PurepyroError, log_density, random, trace

Status = Literal["equal", "refused", "different", "left out"]


@attrs.frozen(kw_only=True)
class Case:
    """A model, and unless only its density is compared a guide and a loss, with arguments."""

    name: str
    model: Callable[..., object]
    guide: Callable[..., object] | None = None
    loss: str = "Trace_ELBO"
    options: Mapping[str, Any] = attrs.field(factory=dict)
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    differentiable: bool = True
    loop: bool = False

    @property
    def variants(self) -> Iterator[Case]:
        """The case with a single particle, and with a loss one with two, by vmap and in a loop."""
        if self.guide is None:
            yield self
            return
        if self.loss != "RenyiELBO":
            yield self
        several = attrs.evolve(self, options={**self.options, "num_particles": 2})
        yield attrs.evolve(several, name=f"{self.name}, 2 particles")
        yield attrs.evolve(several, name=f"{self.name}, 2 particles in a loop", loop=True)


@attrs.frozen
class Row:
    """What came of a case, or of so many tests."""

    name: str
    status: Status
    note: str
    count: int = 1


def compare(case: Case) -> Row:
    """Run a case under Pyro and under ours."""
    pyro.set_rng_seed(0)  # random starting values, the same for all cases of a program
    try:
        expected = _density_of_pyro(case) if case.guide is None else _loss_of_pyro(case)
    except Exception as error:
        return Row(case.name, "left out", f"Pyro itself does not run it: {_brief(error)}")
    try:
        seen = _our_density(case, expected) if case.guide is None else _our_loss(case)
    except PurepyroError as error:
        return Row(case.name, "refused", _brief(error))
    except Exception as error:
        return Row(case.name, "different", f"no error of ours: {_brief(error)}")
    return _judge(case.name, expected, seen)


# ------------------------------------------------------------------------------------------ Pyro


@contextmanager
def draws_from(key: random.Key) -> Iterator[None]:
    """A stretch of code in which plain Pyro draws each site as we do, from the key and its name.

    It is the default that is exchanged, not a handler added, since ``poutine.block`` hides sites
    from handlers.
    """
    default = runtime.default_process_message

    def process(msg: Any) -> None:
        served = msg["done"] or msg["is_observed"] or msg["value"] is not None
        if msg["type"] == "sample" and not served:
            msg["value"] = draw(random.name_key(key, msg["name"]), msg)
        default(msg)

    runtime.default_process_message = process
    try:
        yield
    finally:
        runtime.default_process_message = default


def draw(key: random.Key, msg: Any) -> Tensor:
    """What Pyro's default would draw for a message, drawn from a key."""
    if isinstance(msg["fn"], TorchDistributionMixin) and not msg["args"] and not msg["kwargs"]:
        return random.sample(key, msg["fn"])
    with random.keyed(key):
        drawn: Tensor = msg["fn"](*msg["args"], **msg["kwargs"])
    return drawn


def _with_our_draws(loss: str, options: Mapping[str, Any], key: random.Key) -> Any:
    """Pyro's loss of this name, whose particle i draws from the key of our particle i."""
    kind: Any = getattr(pyro.infer, loss)
    count: int = options.get("num_particles", 1)
    keys = [key] if count == 1 else [random.Key(one) for one in random.split(key, count)]

    class Keyed(kind):  # type: ignore[misc, unused-ignore]
        runs = 0

        def _get_trace(self, model: Any, guide: Any, *args: object) -> Any:
            key = keys[self.runs % count]
            self.runs += 1
            with draws_from(key):
                return super()._get_trace(_keyed(model, key), _keyed(guide, key), *args)

    return Keyed(**options)


def _keyed(fn: Callable[..., object], key: random.Key) -> Callable[..., object]:
    """``fn`` with torch's own random calls outside of sites, such as dropout's, drawn as we do."""

    def run(*args: object, **kwargs: object) -> object:
        with random.keyed(random.name_key(key, "<torch>")):
            return fn(*args, **kwargs)

    return run


def _loss_of_pyro(case: Case) -> dict[str, Tensor]:
    """The loss and its gradients, by name; the parameters are left in Pyro's store."""
    key = random.key(0)
    elbo = _with_our_draws(case.loss, case.options, key)
    with draws_from(key):
        elbo.loss(case.model, case.guide, *case.args, **case.kwargs)  # makes the parameters
        leaves = _leaves()
        for leaf in leaves.values():
            leaf.grad = None
        value = elbo.loss_and_grads(case.model, case.guide, *case.args, **case.kwargs)
    found = {"loss": torch.as_tensor(value)}
    for names, leaf in _shared().items():
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone()
        found[_gradient_of(names)] = gradient
        leaf.grad = None
    return found


def _gradient_of(names: str) -> str:
    return f"gradient of {names}"


def _shared() -> dict[str, Tensor]:
    """The parameters of Pyro's store; one under several names once, under all of them."""
    names: dict[Tensor, list[str]] = {}
    for name, leaf in _leaves().items():
        names.setdefault(leaf, []).append(name)
    return {" and ".join(several): leaf for leaf, several in names.items()}


def _density_of_pyro(case: Case) -> dict[str, Tensor]:
    """The values and log densities of all sites, and the joint density's gradients."""
    with draws_from(random.key(0)):
        run = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    found: dict[str, Tensor] = {}
    latents: dict[str, Tensor] = {}
    nodes: dict[str, Any] = dict(run.nodes)
    for name, node in nodes.items():
        if node["type"] != "sample" or _is_plate(node):
            continue
        found[f"value of {name}"] = node["value"].detach()
        if not node["is_observed"]:
            latents[name] = node["value"].detach()
    leaves = {name: leaf for name, leaf in _leaves().items() if name in run.param_nodes}
    for name, value in latents.items():
        if value.is_floating_point() and case.differentiable:
            leaves[name] = value.clone().requires_grad_()
    conditioned = poutine.condition(case.model, data={**latents, **_only(leaves, latents)})
    again = poutine.trace(conditioned).get_trace(*case.args, **case.kwargs)
    density = again.log_prob_sum()
    found["density"] = torch.as_tensor(density).detach()
    names = list(leaves)
    gradients = _gradients(density, [leaves[name] for name in names])
    found.update({f"gradient of {name}": g for name, g in zip(names, gradients, strict=True)})
    return found


def _is_plate(node: Any) -> bool:
    return type(node["fn"]).__name__ == "_Subsample"


def _only(values: Mapping[str, Tensor], names: Mapping[str, object]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if name in names}


def _gradients(value: Any, leaves: list[Tensor]) -> list[Tensor]:
    if not isinstance(value, Tensor) or not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    ]


def _leaves() -> dict[str, Tensor]:
    """The unconstrained parameters of Pyro's store."""
    return dict(pyro.get_param_store()._params)


# ------------------------------------------------------------------------------------------ ours


def _params() -> dict[str, Tensor]:
    return {name: leaf.detach().clone() for name, leaf in _leaves().items()}


def _our_loss(case: Case) -> dict[str, Tensor]:
    way = {"map": "loop"} if case.loop else {}
    elbo = getattr(purepyro.infer, case.loss)(**case.options, **way)
    key = random.key(0)

    def loss(params: dict[str, Tensor]) -> Tensor:
        value: Tensor = elbo.loss(case.model, case.guide, params, key, *case.args, **case.kwargs)
        return value

    leaves = {name: value.requires_grad_() for name, value in _params().items()}
    value = loss(leaves)
    found = dict(zip(leaves, _gradients(value, list(leaves.values())), strict=True))
    # Pyro sums where one parameter has several names.
    gradients = {
        _gradient_of(names): torch.stack([found[name] for name in names.split(" and ")]).sum(0)
        for names in _shared()
    }
    return {"loss": value, **gradients}


def _our_density(case: Case, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    params = {n: value for n, value in _params().items() if f"gradient of {n}" in expected}
    key = random.key(0)
    _, record = trace(case.model, params, key, *case.args, **case.kwargs)
    found = {f"value of {name}": value.detach() for name, value in record.values.items()}
    found = {name: value for name, value in found.items() if name in expected}
    values = {name: value.detach().clone() for name, value in record.latents.items()}
    leaves = {**params, **values} if case.differentiable else {}
    leaves = {name: leaf for name, leaf in leaves.items() if f"gradient of {name}" in expected}
    for leaf in leaves.values():
        leaf.requires_grad_()
    density = log_density(case.model, params, values, *case.args, **case.kwargs)
    found["density"] = density.detach()
    gradients = _gradients(density, list(leaves.values()))
    found.update({f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)})
    return found


# ----------------------------------------------------------------------------------------- judge


def _judge(name: str, expected: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Row:
    if expected.keys() != seen.keys():
        lacking, extra = (
            sorted(expected.keys() - seen.keys()),
            sorted(seen.keys() - expected.keys()),
        )
        return Row(name, "different", f"ours lacks {lacking[:4]}, and has {extra[:4]} besides")
    largest = max((float(_size(g)) for n, g in expected.items() if n.startswith("grad")), default=0)
    worst = ""
    for what, theirs in expected.items():
        ours = seen[what]
        if ours.shape != theirs.shape:
            worst = f"{what}: shape {list(ours.shape)} for {list(theirs.shape)}"
            break
        if not math.isfinite(float(_size(theirs))):
            return Row(name, "left out", f"{what} is not finite under Pyro")
        scale = max(float(_size(theirs)), largest if what.startswith("grad") else 0.0)
        tolerance = _TOLERANCES.get(theirs.dtype, 1e-9) * max(scale, 1e-3)
        apart = float(_size(ours.detach().double() - theirs.detach().double()))
        if not apart <= tolerance:
            worst = f"{what}: {_shown(ours)} for Pyro's {_shown(theirs)}, {apart:.2g} apart"
            break
    if worst:
        return Row(name, "different", worst)
    value = expected.get("loss", expected.get("density"))
    count = sum(what.startswith("grad") for what in expected)
    shown = "" if value is None else f"{'loss' if 'loss' in expected else 'density'} {value:.6g}"
    return Row(name, "equal", f"{shown}, {count} gradients")


# To rounding: sums of some thousand terms in another order.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-4}


def _size(value: Tensor) -> Tensor:
    return value.detach().double().abs().max() if value.numel() else torch.zeros(())


def _shown(value: Tensor) -> str:
    if value.numel() == 1:
        return f"{value.item():.6g}"
    return f"[{', '.join(f'{each:.4g}' for each in value.detach().flatten()[:3].tolist())}, ...]"


def _brief(error: BaseException) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}"
