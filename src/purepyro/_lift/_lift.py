"""``lift``: any network of ``torch.nn`` as a Module, its parameters learnable, random or frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar, cast, overload

import attrs
from torch import nn

from .._compat._pyro import is_transforming
from .._declare._bind import Held
from .._declare._fields import Field, PyroParam, PyroSample
from .._declare._module import HasForward, Module
from .._declare._parameter_fields import check_overrides, fitted
from .._declare._reads import BINDING, Binding, join
from .._declare._tree import Node, parameters_of, with_overrides
from .._errors import DeclarationError, MutationError, UnsupportedLayerError, describe
from ._priors import Priors, PriorsByKind, matching, priors_of
from ._reinitialize import Fresh, layer_text

P = ParamSpec("P")
R = TypeVar("R")


class Lifted(Module, Generic[P, R]):
    """A network of ``torch.nn`` as a Module, as :func:`lift` makes it.

    Its parameters and sites bear the names that the network gives them. ``forward`` has the
    signature of the network's.

    Example:
        >>> import torch
        >>> from torch import Tensor, nn
        >>> from purepyro import Lifted, Module, init, lift, random
        >>> class Model(Module):
        ...     net: Lifted[[Tensor], Tensor]
        >>> list(init(Model(lift(nn.Linear(2, 1))), random.key(0)))
        ['net.weight', 'net.bias']
    """

    net: HasForward[P, R] = attrs.field(metadata={"inline": True})

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the network computes."""
        # Its __call__ runs the hooks; nn.Module gives it no signature.
        call = cast("Callable[P, R]", self.net)
        try:
            return call(*args, **kwargs)
        except (RuntimeError, UserWarning) as error:
            binding: Binding | None = self.__dict__.get(BINDING)
            explained = _explained(error, self.net, binding.path if binding else "")
            if explained is None:
                raise
            raise explained from error


@overload
def lift(
    net: HasForward[P, R],
    prior: Priors = None,
    *,
    frozen: str | Iterable[str] = (),
    reinitialize: bool = False,
) -> Lifted[P, R]: ...
@overload
def lift(
    net: HasForward[P, R],
    prior: PriorsByKind,
    *,
    frozen: str | Iterable[str] = (),
    reinitialize: bool = False,
) -> Lifted[P, R]: ...
def lift(
    net: HasForward[P, R],
    prior: Priors | PriorsByKind = None,
    *,
    frozen: str | Iterable[str] = (),
    reinitialize: bool = False,
) -> Lifted[P, R]:
    """Any network of ``torch.nn`` as a Module, with priors on the parameters of your choice.

    Parameters are learnable unless they get a prior, which makes them random sites, or are frozen.
    Those with ``requires_grad=False`` are frozen already. Names are those of
    ``net.named_parameters()``; tied parameters are one, under the first of their names. ``net`` is
    neither copied nor changed; what is done to it later (``eval()``, ``load_state_dict``) shows.

    Args:
        net: The network.
        prior: A distribution for all parameters; a callable ``(name, value)`` that returns one, or
            ``None`` to leave the parameter learnable; or a mapping to these. A key is the name of
            a parameter, a glob over names (``"layers.*.weight"``, ``*`` also matches dots), or a
            type of layers, for the parameters that they own directly. A name goes before a glob,
            a glob before a type. A prior of one number is expanded to the parameter's shape.
        frozen: Globs of parameters that keep the values they have. A distribution or callable for
            all is for those that are not frozen.
        reinitialize: Whether :func:`init` draws new starting values from its key, by the layers'
            own ``reset_parameters``, in place of taking those in ``net``. Under ``torch.vmap`` over
            keys each member starts elsewhere.

    Returns:
        A Module. ``apply(lift(net), init(lift(net), key), key, x)`` is ``net(x)``.

    Raises:
        UnknownNameError: if a pattern matches no parameter.
        DeclarationError: if two patterns give one parameter different priors, or one is both
            frozen and given a prior; if ``net`` is no ``torch.nn`` module.
        ShapeError: if a prior does not have the shape of its parameter.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from torch import nn
        >>> from purepyro import apply, init, lift, random
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> model = lift(net, {"2.*": dist.Normal(0.0, 1.0)}, frozen="0.bias")
        >>> key = random.key(0)
        >>> params = init(model, key)
        >>> list(params)
        ['0.weight']
        >>> apply(model, params, key, torch.ones(5, 3)).shape
        torch.Size([5, 1])
    """
    module = _network(net)
    names = [name for name, _ in parameters_of(module)]
    held = matching(module, [frozen] if isinstance(frozen, str) else frozen, "frozen")
    priors = priors_of(module, prior, frozen=held)
    for name, pattern in held.items():
        if name in priors:
            raise DeclarationError(
                f"The parameter {name!r} is frozen by {pattern!r} and is given the prior "
                f"{type(priors[name]).__name__}. It can be one or the other: narrow the pattern, "
                f"or write prior={{{name!r}: None, ...}}."
            )
    parameters = dict(parameters_of(module))
    declarations: dict[str, Field] = {}
    for name in names:
        if name in priors:
            declarations[name] = fitted(name, PyroSample(priors[name]), parameters[name])
        elif name in held:
            declarations[name] = Held()
        elif reinitialize:
            declarations[name] = PyroParam(Fresh("net", name))
    lifted = Lifted(net)
    return with_overrides(lifted, declarations, check_overrides) if declarations else lifted


def _network(net: object) -> nn.Module:
    if isinstance(net, nn.Module):
        return net
    if isinstance(net, type) and issubclass(net, nn.Module):
        raise DeclarationError(
            f"lift was given the class {net.__name__}; it lifts a network, with its weights. Write "
            f"lift({net.__name__}(...))."
        )
    advice = "A Module needs no lift." if isinstance(net, Node) else "Wrap it in one."
    raise DeclarationError(
        f"lift was given {describe(net)}, which is no torch.nn module, so it has no parameters to "
        f"learn or draw. {advice}"
    )


# What torch says where an operation does not go with vmap, or goes in a slow loop.
_OF_VMAP = ("vmap", "atching rule", "BatchedTensor", "were not batched")


def _explained(error: Exception, net: object, path: str) -> Exception | None:
    """An error that names the layer where vmap failed; ``None`` if it is about something else."""
    text = str(error)
    if isinstance(error, UnsupportedLayerError) or not is_transforming():
        return None
    if not any(mark in text for mark in _OF_VMAP) or not isinstance(net, nn.Module):
        return None
    name, layer = _innermost(net, error.__traceback__)
    where = join(path, name)
    buffers = ", ".join(repr(join(where, buffer)) for buffer, _ in layer.named_buffers())
    if "running_mean" in text and buffers:
        return MutationError(
            f"{layer_text(where, layer)} would change its buffers {buffers} "
            "under vmap, where each particle or member needs its own. Put the network into "
            "evaluation mode by .eval(), use a layer without such state (GroupNorm, LayerNorm), "
            "or give each its own by expand_state and apply_with_state, and make one of them "
            "again by reduce_state."
        )
    return UnsupportedLayerError(
        f"{layer_text(where, layer)} does not go with vmap: torch says "
        f'{text.splitlines()[0]!r}. Run the particles or members in a loop (map="loop", or one '
        "apply for each), or put a layer made of plain operations in its place."
    )


def _innermost(net: nn.Module, traceback: TracebackType | None) -> tuple[str, nn.Module]:
    """The layer of ``net`` that was at work last, by the frames of the error."""
    layers = {id(layer): (name, layer) for name, layer in net.named_modules()}
    found = ("", net)
    while traceback is not None:
        at_work = traceback.tb_frame.f_locals.get("self")
        found = layers.get(id(at_work), found)
        traceback = traceback.tb_next
    return found
