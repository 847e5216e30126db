"""Declarations: what they accept, what they refuse, and what reading them gives."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import Module, Prior, PyroParam, PyroSample, apply, constrain, init, random, trace
from purepyro._errors import (
    CycleError,
    DeclarationError,
    DtypeError,
    OutsideRunError,
    SupportError,
)


class Everything(Module):
    """Each form of declaration once."""

    size: int
    tensor = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    thunk = PyroParam(lambda: torch.ones(2))
    of_self = PyroParam(lambda self: torch.full((self.size,), 0.5))
    fixed = PyroSample(dist.Normal(0.0, 1.0))
    built = PyroSample(lambda self: dist.Normal(self.tensor, 1.0).expand([self.size]).to_event(1))

    @PyroParam
    def plain_method(self) -> Tensor:
        return torch.zeros(self.size)

    @PyroParam(constraint=constraints.unit_interval, event_dim=1)
    def method(self) -> Tensor:
        return torch.full((self.size,), 0.25)

    @PyroSample
    def dependent(self) -> Prior:
        return dist.Normal(self.fixed, self.tensor)

    @PyroSample(infer={"enumerate": "parallel"})
    def flag(self) -> Prior:
        return dist.Bernoulli(self.method).to_event(1)

    @PyroSample
    def deterministic(self) -> Prior:
        return self.dependent * 2

    def forward(self) -> Tensor:
        return self.deterministic + self.built.sum() + self.flag.sum() + self.of_self.sum()


def test_class_access_gives_the_declaration() -> None:
    assert isinstance(Everything.tensor, PyroParam)
    assert isinstance(Everything.fixed, PyroSample)


def test_every_form_declares_its_parameter(key: random.Key) -> None:
    model = Everything(3)
    params = init(model, key)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "tensor": (),
        "thunk": (2,),
        "of_self": (3,),
        "plain_method": (3,),
        "method": (3,),
    }
    constrained = constrain(model, params)
    torch.testing.assert_close(constrained["tensor"], torch.tensor(2.0))
    torch.testing.assert_close(constrained["method"], torch.full((3,), 0.25))


def test_every_form_declares_its_site(key: random.Key) -> None:
    model = Everything(3)
    _, record = trace(model, init(model, key), key)
    assert set(record.latents) == {"fixed", "dependent", "built", "flag"}
    assert set(record.deterministic) == {"deterministic"}
    assert torch.equal(record.deterministic["deterministic"], record.latents["dependent"] * 2)


def test_random_initial_values_are_keyed_by_name() -> None:
    class Two(Module):
        a = PyroParam(lambda: torch.randn(4))
        b = PyroParam(lambda: torch.nn.init.xavier_normal_(torch.empty(2, 3)))

    class Three(Module):
        extra = PyroParam(lambda: torch.randn(4))
        b = PyroParam(lambda: torch.nn.init.xavier_normal_(torch.empty(2, 3)))
        a = PyroParam(lambda: torch.randn(4))

    two, three = init(Two(), random.key(1)), init(Three(), random.key(1))
    assert torch.equal(two["a"], three["a"])
    assert torch.equal(two["b"], three["b"])
    assert not torch.equal(three["a"], three["extra"])
    assert not torch.equal(two["a"], init(Two(), random.key(2))["a"])


def test_initial_values_do_not_alias_the_declaration(key: random.Key) -> None:
    class One(Module):
        a = PyroParam(torch.zeros(2))

    init(One(), key)["a"].add_(1.0)
    assert torch.equal(init(One(), key)["a"], torch.zeros(2))


def test_a_scalar_and_an_empty_parameter(key: random.Key) -> None:
    class Sizes(Module):
        none = PyroParam(torch.zeros(0), constraint=constraints.positive)
        one = PyroParam(torch.tensor(1.0, dtype=torch.float64))

        def forward(self) -> Tensor:
            return self.none.sum() + self.one

    params = init(Sizes(), key)
    assert apply(Sizes(), params, key).dtype == torch.float64


def test_a_field_is_drawn_once_a_run(key: random.Key) -> None:
    class Twice(Module):
        z = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self) -> tuple[Tensor, Tensor]:
            return self.z, self.z

    first, second = apply(Twice(), {}, key)
    assert first is second


def test_reading_outside_a_run() -> None:
    with pytest.raises(OutsideRunError, match=r"Everything\.tensor was read outside a run.*apply"):
        _ = Everything(3).tensor
    with pytest.raises(OutsideRunError, match=r"Everything\.fixed was read outside"):
        _ = Everything(3).fixed


def test_a_cycle_is_named(key: random.Key) -> None:
    class Inner(Module):
        @PyroSample
        def a(self) -> Prior:
            return dist.Normal(self.b, 1.0)

        @PyroSample
        def b(self) -> Prior:
            return dist.Normal(self.c, 1.0)

        @PyroSample
        def c(self) -> Prior:
            return dist.Normal(self.a, 1.0)

    class Outer(Module):
        inner: Inner

        def forward(self) -> Tensor:
            return self.inner.b

    with pytest.raises(CycleError, match=r"'inner.b' -> 'inner.c' -> 'inner.a' -> 'inner.b'"):
        apply(Outer(Inner()), {}, key)


def test_a_prior_that_returns_something_else(key: random.Key) -> None:
    class Inner(Module):
        z = PyroSample(lambda self: 3.0)  # type: ignore[arg-type]  # pyright: ignore

    class Outer(Module):
        inner: Inner

        def forward(self) -> Tensor:
            return self.inner.z

    with pytest.raises(DeclarationError, match=r"'inner\.z' returned 3\.0.*neither.*dist\.Normal"):
        apply(Outer(Inner()), {}, key)


def test_an_error_inside_a_prior_names_its_site(key: random.Key) -> None:
    class Broken(Module):
        @PyroSample
        def z(self) -> Prior:
            return dist.Normal(0.0, torch.tensor(-1.0))

        def forward(self) -> Tensor:
            return self.z

    with pytest.raises(ValueError, match=r"scale") as caught:
        apply(Broken(), {}, key)
    assert "'z'" in caught.value.__notes__[0]


def test_torch_distributions_are_refused_with_the_right_name() -> None:
    with pytest.raises(DeclarationError, match=r"torch's: write pyro\.distributions\.Normal"):
        PyroSample(torch.distributions.Normal(0.0, 1.0))  # type: ignore[arg-type]  # pyright: ignore


@pytest.mark.parametrize("prior", [torch.zeros(3), 3.0, "normal", dist.Normal])
def test_what_is_no_prior(prior: object) -> None:
    with pytest.raises(DeclarationError, match=r"PyroSample got .*, which is neither"):
        PyroSample(prior)  # type: ignore[arg-type]  # pyright: ignore


@pytest.mark.parametrize("init_value", [3.0, "one", [1.0], lambda a, b: a])
def test_what_is_no_initial_value(init_value: object) -> None:
    with pytest.raises(DeclarationError, match=r"PyroParam got .* as its initial value"):
        PyroParam(init_value)  # type: ignore[arg-type]  # pyright: ignore


def test_integers_cannot_be_learned(key: random.Key) -> None:
    with pytest.raises(DtypeError, match=r"int64\[\].*Only floating"):
        PyroParam(torch.tensor(1))

    class Late(Module):
        a = PyroParam(lambda: torch.tensor([1, 2]))

    with pytest.raises(DtypeError, match=r"'a' has the initial value int64\[2\]"):
        init(Late(), key)


def test_an_initial_value_that_is_no_tensor(key: random.Key) -> None:
    class Late(Module):
        a = PyroParam(lambda: 1.0)  # type: ignore[arg-type]  # pyright: ignore

    with pytest.raises(DeclarationError, match=r"'a' is 1\.0, which is no Tensor"):
        init(Late(), key)


def test_an_initial_value_outside_its_constraint(key: random.Key) -> None:
    class Negative(Module):
        scale = PyroParam(torch.tensor([1.0, -1.0]), constraint=constraints.positive)

    with pytest.raises(SupportError, match=r"'scale' \(float32\[2\], from -1 to 1\).*constraint"):
        init(Negative(), key)


def test_an_initial_value_that_is_not_finite(key: random.Key) -> None:
    class Infinite(Module):
        scale = PyroParam(torch.tensor(float("nan")))

    with pytest.raises(SupportError, match=r"'scale' .*is not finite"):
        init(Infinite(), key)


def test_a_wrong_constraint_or_event_dim() -> None:
    with pytest.raises(DeclarationError, match=r"no constraint of pyro.distributions"):
        PyroParam(torch.tensor(1.0), constraint="positive")  # type: ignore[arg-type]  # pyright: ignore
    with pytest.raises(DeclarationError, match=r"event_dim=-1"):
        PyroParam(torch.zeros(2), event_dim=-1)
