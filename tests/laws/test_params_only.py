"""Law 13: params are all that a run computes with, however a network reaches its own parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from purepyro import apply, init, lift, random
from purepyro._errors import MissingNameError

KEY = random.key(0)
OUTSIDE: dict[int, nn.Module] = {}


class Twice(nn.Module):
    """Two layers; its subclasses say by which way it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 2)

    def run(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.tanh(self.a(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


class ByMethod(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.fn = self.run

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


class ByPartial(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.fn = functools.partial(self.run)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


class ByList(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Callable[[Tensor], Tensor]] = [self.a, torch.tanh, self.b]

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class ByDict(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.parts = {"first": (self.a,), "rest": {"last": self.b.forward}}

    def forward(self, x: Tensor) -> Tensor:
        first, rest = self.parts["first"], self.parts["rest"]
        assert isinstance(first, tuple)
        assert isinstance(rest, dict)
        out: Tensor = rest["last"](torch.tanh(first[0](x)))
        return out


class ByClosure(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.fn: Callable[[Tensor], Tensor] = lambda x: self.b(torch.tanh(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(x)
        return out


class ByHook(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(self.hook)

    def hook(self, _: nn.Module, __: object, out: Tensor) -> Tensor:
        last: Tensor = self.b(torch.tanh(out))
        return last

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.a(x)
        return first


class ByGlobal(Twice):
    def __init__(self) -> None:
        super().__init__()
        OUTSIDE[id(self.b)] = self.a
        self.place = id(self.b)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.tanh(OUTSIDE[self.place](x)))
        return out


class BySteps(Twice):
    """Methods in a list hand a value on in an attribute."""

    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.steps = [self.first, self.second]

    def first(self) -> None:
        self.h = torch.tanh(self.a(self.h))

    def second(self) -> None:
        self.h = self.b(self.h)

    def forward(self, x: Tensor) -> Tensor:
        self.h = x
        for step in self.steps:
            step()
        return self.h


class Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return x @ w.mT

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: object, output: object
    ) -> None:
        assert isinstance(inputs, tuple)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        saved: tuple[Tensor, Tensor] = getattr(ctx, "saved_tensors")  # noqa: B009
        return grads[0] @ saved[1], grads[0].mT @ saved[0]


class ByFunction(Twice):
    """Through an autograd function of the user's own."""

    def run(self, x: Tensor) -> Tensor:
        product: Callable[..., Tensor] = Product.apply
        out: Tensor = self.b(torch.tanh(product(x, self.a.weight) + self.a.bias))
        return out


class Tied(Twice):
    """One layer under two names, and one parameter in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Linear(3, 4)
        self.c.weight = self.a.weight
        self.d = self.b

    def run(self, x: Tensor) -> Tensor:
        out: Tensor = self.d(self.a(x)) + self.b(self.c(torch.tanh(x)))
        return out


class Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def compiled() -> nn.Module:
    net = Twice()
    net.compile(backend="eager")
    return net


def wrapped() -> nn.Module:
    made: object = torch.compile(Twice(), backend="eager")
    assert isinstance(made, nn.Module)
    return made


def parametrised() -> nn.Module:
    net = Twice()
    nn.utils.parametrize.register_parametrization(net.a, "weight", Exponential())
    return net


FORMS: list[Callable[[], nn.Module]] = [
    *(Twice, ByMethod, ByPartial, ByList, ByDict, ByClosure, ByHook, ByGlobal, BySteps),
    *(ByFunction, Tied, compiled, wrapped, parametrised),
]


def _as_field(net: nn.Module) -> tuple[Callable[[Tensor], object], str]:
    return lift(net), ""


def _in_a_function(net: nn.Module) -> tuple[Callable[[Tensor], object], str]:
    def model(x: Tensor) -> object:
        pyro.module("net", net)
        return net(x)

    return model, "net$$$"


def test_a_function_of_the_users_own_is_seen_to_go_around_a_plain_model() -> None:
    net = ByFunction()
    model, _ = _in_a_function(net)
    params, x = init(model, KEY, torch.ones(2, 3)), torch.ones(2, 3)
    with pytest.raises(MissingNameError, match=r"'net\$\$\$a\.weight'.*lift\(net\)"):
        apply(model, params, KEY, x)
    assert torch.equal(apply(lift(net), init(lift(net), KEY), KEY, x), net(x))


@pytest.mark.parametrize("hold", [_as_field, _in_a_function])
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**30), double=st.booleans())
def test_a_run_is_a_functional_call(
    form: Callable[[], nn.Module],
    hold: Callable[[nn.Module], tuple[Callable[[Tensor], object], str]],
    seed: int,
    double: bool,
) -> None:
    dtype = torch.float64 if double else torch.float32
    if form is ByFunction and hold is _in_a_function:
        return  # refused, as above
    net, other = form().to(dtype), form().to(dtype)
    model, prefix = hold(net)
    key = random.key(seed)
    x = random.normal(random.fold_in(key, 1), 5, 3, dtype=dtype)
    values = {
        name: own.detach() + random.normal(random.name_key(key, name), *own.shape, dtype=dtype)
        for name, own in net.named_parameters()
    }
    params = {prefix + name: value for name, value in values.items()}
    before = [dict(vars(module)) for module in net.modules()]

    def ours(params: dict[str, Tensor]) -> Tensor:
        out = apply(model, params, KEY, x)
        assert isinstance(out, Tensor)
        return out

    def theirs(values: dict[str, Tensor]) -> Tensor:
        out: Tensor = functional_call(other, values, (x,))
        return out

    assert sorted(init(model, KEY, x)) == sorted(params)
    torch.testing.assert_close(ours(params), theirs(values))
    gradients = torch.func.grad(lambda p: ours(p).square().sum())(params)
    expected = torch.func.grad(lambda p: theirs(p).square().sum())(values)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[prefix + name], gradient)
    stacked = {name: torch.stack([value, 2 * value]) for name, value in params.items()}
    torch.testing.assert_close(torch.vmap(ours)(stacked)[0], ours(params))
    after = [dict(vars(module)) for module in net.modules()]
    assert [list(d) for d in before] == [list(d) for d in after]
    assert all(b[k] is a[k] for b, a in zip(before, after, strict=True) for k in b)
