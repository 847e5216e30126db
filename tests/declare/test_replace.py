"""Changed copies: ``replace`` and ``to``."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from models import BayesianLinear, regression
from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    describe,
    init,
    lift,
    log_density,
    random,
    replace,
    static,
    to,
    trace,
)
from purepyro._errors import DeclarationError, DtypeError, ShapeError, UnknownNameError


class Leaf(Module):
    w = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        return self.w


class Tree(Module):
    leaves: tuple[Leaf, ...]
    table: dict[str, Leaf]
    net: nn.Sequential
    rate: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out + self.leaves[0].w + self.table["a"].w


def tree() -> Tree:
    return Tree((Leaf(), Leaf()), {"a": Leaf()}, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))


def test_random_becomes_learnable_and_back(key: random.Key) -> None:
    model = regression()
    learnable = replace(
        model,
        {
            "linear.weight": PyroParam(torch.ones(1, 3)),
            "sigma": PyroParam(torch.tensor(0.5), constraint=constraints.positive),
        },
    )
    assert set(init(learnable, key)) == {"linear.scale", "linear.weight", "sigma"}
    x = torch.ones(2, 3)
    _, record = trace(learnable, init(learnable, key), key, x, torch.zeros(2))
    assert set(record.latents) == {"linear.bias"}
    back = replace(learnable, {"linear.weight": PyroSample(dist.Normal(torch.zeros(1, 3), 1.0))})
    assert set(init(back, key)) == {"linear.scale", "sigma"}
    assert set(init(model, key)) == {"linear.scale"}


def test_another_prior_may_read_the_instance(key: random.Key) -> None:
    model = replace(
        BayesianLinear(2, 1), {"bias": PyroSample(lambda self: dist.Normal(self.scale, 1e-6))}
    )
    _, record = trace(model, {"scale": torch.tensor(0.0)}, key, torch.zeros(1, 2))
    torch.testing.assert_close(record.latents["bias"], torch.tensor(1.0), atol=1e-4, rtol=0)


def test_a_subtree_a_setting_and_an_item() -> None:
    model = tree()
    new = Leaf()
    changed = replace(model, {"leaves.1": new, "rate": 2.0, "table.a": new})
    assert changed.leaves[1] is new
    assert changed.table["a"] is new
    assert changed.rate == 2.0
    assert changed.leaves[0] is model.leaves[0]
    assert model.rate == 1.0


def test_a_parameter_of_a_torch_module_becomes_random(key: random.Key) -> None:
    model = tree()
    prior = dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2)
    changed = replace(model, {"net.0.weight": PyroSample(prior)})
    assert set(init(changed, key)) == {"net.0.bias", "net.1.weight", "net.1.bias"}
    y, record = trace(changed, init(changed, key), key, torch.ones(4, 2))
    assert record.latents["net.0.weight"].shape == (3, 2)
    other = apply(changed, init(changed, key), random.key(1), torch.ones(4, 2))
    assert not torch.equal(y, other)


def test_a_parameter_of_a_torch_module_gets_a_constraint(key: random.Key) -> None:
    changed = replace(
        tree(), {"net.1.bias": PyroParam(torch.ones(1), constraint=constraints.positive)}
    )
    assert torch.equal(init(changed, key)["net.1.bias"], torch.zeros(1))


def test_a_shared_submodule_changes_everywhere(key: random.Key) -> None:
    leaf = Leaf()
    model = Tree((leaf, leaf), {"a": leaf}, nn.Sequential(nn.Linear(2, 1)))
    changed = replace(model, {"table.a.w": PyroParam(torch.tensor(3.0))})
    assert set(init(changed, key)) == {"leaves.0.w", "net.0.weight", "net.0.bias"}
    assert changed.leaves[0] is changed.table["a"]


def test_replace_twice_keeps_the_first_change(key: random.Key) -> None:
    model = replace(regression(), {"sigma": PyroParam(torch.tensor(1.0))})
    model = replace(model, {"linear.bias": PyroParam(torch.tensor(1.0))})
    assert set(init(model, key)) == {"linear.scale", "linear.bias", "sigma"}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("linear.wieght", "linear.weight"),
        ("linaer.weight", "linear.weight"),
        ("linear.weight.more", "linear.weight"),
        ("sigm", "sigma"),
    ],
)
def test_an_unknown_path(path: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"'{path}', which leads nowhere.*'{hint}'"):
        replace(regression(), {path: PyroParam(torch.tensor(1.0))})


def test_an_unknown_parameter_of_a_torch_module() -> None:
    with pytest.raises(UnknownNameError, match=r"net\.0\.wieght.*net\.0\.weight"):
        replace(tree(), {"net.0.wieght": PyroParam(torch.ones(3, 2))})


def test_a_tensor_where_a_declaration_belongs() -> None:
    with pytest.raises(
        DeclarationError, match=r"float32\[1, 3\] for 'linear\.weight', where a decl"
    ):
        replace(regression(), {"linear.weight": torch.zeros(1, 3)})


def test_a_declaration_where_a_submodule_stands() -> None:
    with pytest.raises(DeclarationError, match=r"a PyroParam for 'linear', which is a plain field"):
        replace(regression(), {"linear": PyroParam(torch.zeros(3))})


def test_paths_inside_one_another() -> None:
    with pytest.raises(DeclarationError, match=r"both 'linear' and 'linear.bias'"):
        replace(
            regression(),
            {"linear": BayesianLinear(3, 1), "linear.bias": PyroParam(torch.zeros(()))},
        )


def test_to_float64_reaches_everything(key: random.Key) -> None:
    class Mixed(Module):
        offset: Tensor
        count: Tensor
        net: nn.Linear
        parts: list[Leaf]
        scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        z = PyroSample(dist.Normal(0.0, 1.0))

        @PyroParam
        def late(self) -> Tensor:
            return torch.ones(2)

        def forward(self, x: Tensor) -> Tensor:
            total = self.net(x) + self.offset + self.scale * self.z + self.late.sum()
            out: Tensor = total + self.parts[0].w
            return out

    single = Mixed(torch.ones(1), torch.tensor(3), nn.Linear(2, 1), [Leaf()])
    double = to(single, torch.float64)
    params = init(double, key)
    assert {value.dtype for value in params.values()} == {torch.float64}
    y, record = trace(double, params, key, torch.ones(4, 2, dtype=torch.float64))
    assert y.dtype == torch.float64
    assert {value.dtype for value in record.latents.values()} == {torch.float64}
    assert double.count.dtype == torch.int64
    assert single.offset.dtype == single.net.weight.dtype == torch.float32
    assert init(single, key)["scale"].dtype == torch.float32


# Copies keep what replace, lift and to have declared.

M = TypeVar("M", bound=Module)


class Named(Module):
    """With an __init__ of its own."""

    size: int
    w = PyroSample(dist.Normal(0.0, 1.0))

    def __init__(self, size: int) -> None:
        object.__setattr__(self, "size", size)

    def forward(self) -> Tensor:
        return self.w * self.size


class Held(Module, Generic[M]):
    """A generic one."""

    inner: M
    rate: float = 1.0


class Registered(Module):
    """A base class with a hook for its subclasses, which want an argument."""

    tags: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, tag: str) -> None:
        super().__init_subclass__()
        Registered.tags.append(tag)


class Tagged(Registered, tag="one"):
    size: int
    w = PyroSample(dist.Normal(0.0, 1.0))


def by_pickle(model: Module) -> Module:
    copied = pickle.loads(pickle.dumps(model))
    assert isinstance(copied, Module)
    return copied


COPIES: tuple[Callable[[Module], Module], ...] = (
    copy.copy,
    copy.deepcopy,
    by_pickle,
    attrs.evolve,
    lambda model: replace(model, {}),
    lambda model: to(model, torch.float32),
    lambda model: copy.copy(attrs.evolve(by_pickle(model))),
)


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize(
    "model",
    [
        replace(regression(), {"sigma": PyroParam(torch.tensor(2.0))}),
        replace(regression(), {"linear.bias": PyroParam(torch.tensor(2.0))}),
        replace(Held(Leaf()), {"inner.w": PyroParam(torch.tensor(2.0))}),
        replace(Named(2), {"w": PyroParam(torch.tensor(2.0))}),
        replace(Tagged(2), {"w": PyroParam(torch.tensor(2.0))}),
        replace(tree(), {"net.0.bias": PyroSample(dist.Normal(0.0, 1.0))}),
        lift(nn.Linear(3, 1), {"bias": dist.Normal(0.0, 1.0)}, frozen="weight"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_copies_keep_declarations(
    model: Module, copied: Callable[[Module], Module], key: random.Key
) -> None:
    again = copied(model)
    assert init(again, key).keys() == init(model, key).keys()
    assert describe(again) == describe(model)
    assert type(again).__qualname__ == type(model).__qualname__
    assert type(again).__module__ == type(model).__module__
    assert repr(again).partition("(")[0] == repr(model).partition("(")[0]


def test_evolve_changes_the_rest(key: random.Key) -> None:
    model = replace(BayesianLinear(3, 1), {"bias": PyroParam(torch.tensor(2.0))})
    wide = attrs.evolve(model, in_features=4)
    assert wide.in_features == 4
    assert isinstance(wide, BayesianLinear)
    assert set(init(wide, key)) == {"scale", "bias"}
    again = replace(wide, {"bias": PyroSample(dist.Normal(0.0, 1.0)), "in_features": 2})
    assert set(init(attrs.evolve(again, out_features=2), key)) == {"scale"}
    assert set(init(wide, key)) == {"scale", "bias"}


def test_hooks_of_subclasses_see_no_copies() -> None:
    before = list(Registered.tags)
    replace(Tagged(2), {"w": PyroParam(torch.tensor(2.0))})
    assert Registered.tags == before


def test_a_new_network_must_fit_the_declarations(key: random.Key) -> None:
    model = replace(tree(), {"net.0.bias": PyroSample(dist.Normal(0.0, 1.0))})
    other = attrs.evolve(model, net=nn.Sequential(nn.Linear(5, 3)))
    assert set(init(other, key)) == {"net.0.weight"}
    with pytest.raises(ShapeError, match=r"'net\.0\.bias' of the shape \[3\].*the shape \[4\]"):
        attrs.evolve(model, net=nn.Sequential(nn.Linear(2, 4)))
    with pytest.raises(DeclarationError, match=r"'net\.0\.bias', made by replace.*no such"):
        replace(model, {"net": nn.Sequential(nn.Linear(2, 3, bias=False))})
    lifted = lift(nn.Linear(2, 1), frozen="bias")
    with pytest.raises(DeclarationError, match=r"'bias', made by .*lift"):
        attrs.evolve(lifted, net=nn.Linear(2, 1, bias=False))


# Declarations in the place of a network's parameter have its shape.


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "declaration",
    [
        PyroSample(dist.Normal(0.0, 1.0)),
        PyroSample(lambda: dist.Normal(0.0, 1.0)),
        PyroSample(lambda self: dist.Normal(0.0, self.rate)),
        PyroSample(dist.Normal(torch.zeros(3), 1.0)),
        PyroSample(dist.Normal(torch.zeros(3), 1.0).to_event(1)),
        PyroSample(dist.MultivariateNormal(torch.zeros(3), torch.eye(3))),
    ],
    ids=str,
)
def test_a_prior_gets_the_parameters_shape(
    declaration: PyroSample, double: bool, key: random.Key
) -> None:
    dtype = torch.float64 if double else torch.float32
    model = to(replace(tree(), {"net.0.bias": declaration}), dtype)
    _, record = trace(model, init(model, key), key, torch.ones(4, 2, dtype=dtype))
    assert record.latents["net.0.bias"].shape == (3,)
    assert record.latents["net.0.bias"].dtype == dtype
    assert record.log_densities["net.0.bias"].shape == ()
    assert len(set(record.latents["net.0.bias"].tolist())) == 3
    shapes = {entry.path: entry.shape for entry in describe(model).entries}
    assert shapes["net.0.bias"] == (3,)


def test_a_prior_gets_the_parameters_dtype(key: random.Key) -> None:
    double = to(tree(), torch.float64)
    for declaration in (
        PyroSample(dist.Normal(0.0, 1.0)),
        PyroSample(lambda: dist.Normal(0.0, 1.0)),
    ):
        model = replace(double, {"net.0.bias": declaration})
        y = apply(model, init(model, key), key, torch.ones(4, 2, dtype=torch.float64))
        assert y.dtype == torch.float64


@pytest.mark.parametrize(
    "prior",
    [
        dist.Normal(torch.zeros(3, 3), 1.0).to_event(2),
        dist.Normal(torch.zeros(1), 1.0),
        dist.Normal(torch.zeros(4), 1.0).to_event(1),
        dist.Dirichlet(torch.ones(2)),
    ],
    ids=str,
)
def test_a_prior_of_another_shape(prior: dist.TorchDistribution, key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"'net\.0\.bias' has batch shape.*float32\[3\]"):
        replace(tree(), {"net.0.bias": PyroSample(prior)})
    late = replace(tree(), {"net.0.bias": PyroSample(lambda: prior)})
    with pytest.raises(ShapeError, match=r"'net\.0\.bias' has batch shape.*float32\[3\]"):
        apply(late, init(late, key), key, torch.ones(4, 2))


def test_an_expanded_prior_scores_all_its_numbers() -> None:
    model = replace(lift(nn.Linear(3, 1)), {"weight": PyroSample(dist.Normal(0.0, 2.0))})
    weight = torch.tensor([[1.0, 2.0, 3.0]])
    value = log_density(model, {"bias": torch.zeros(1)}, {"weight": weight}, torch.ones(2, 3))
    torch.testing.assert_close(value, dist.Normal(0.0, 2.0).log_prob(weight).sum())


def test_a_computed_value_of_another_shape(key: random.Key) -> None:
    model = replace(tree(), {"net.0.bias": PyroSample(lambda: torch.zeros(()))})
    with pytest.raises(ShapeError, match=r"'net\.0\.bias' is float32\[\].*shape \[3\]"):
        apply(model, init(model, key), key, torch.ones(4, 2))


@pytest.mark.parametrize("later", [False, True])
def test_a_starting_value_gets_the_parameters_shape(later: bool, key: random.Key) -> None:
    def declared(value: Tensor) -> PyroParam:
        return PyroParam((lambda: value) if later else value, constraint=constraints.positive)

    model = replace(to(tree(), torch.float64), {"net.0.bias": declared(torch.tensor(1.0))})
    params = init(model, key)
    assert torch.equal(params["net.0.bias"], torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"'net\.0\.bias' is float32\[4\].*\[3\]"):
        init(replace(tree(), {"net.0.bias": declared(torch.ones(4))}), key)


def test_a_parameter_has_no_rows() -> None:
    with pytest.raises(DeclarationError, match=r"'net\.0\.bias' has local=True.*one value"):
        replace(tree(), {"net.0.bias": PyroSample(dist.Normal(0.0, 1.0), local=True)})


def test_a_shared_network_is_declared_under_any_of_its_paths(key: random.Key) -> None:
    class Two(Module):
        a: nn.Linear
        b: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x) - self.b(x)
            return y

    net, tied = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = net.weight
    for model in (Two(net, net), Two(net, tied)):
        changed = replace(model, {"b.weight": PyroSample(dist.Normal(0.0, 1.0))})
        assert "a.weight" in trace(changed, init(changed, key), key, torch.ones(2))[1].latents
        assert "b.weight" not in init(changed, key)


# ``replace`` and ``to`` take every kind of field that attrs has.


class Fields(Module):
    """Fields of all kinds."""

    factor: float = attrs.field(converter=lambda value: 2.0 * value)
    _private: Tensor
    named: Tensor = attrs.field(alias="called")
    parts: dict[str, tuple[Tensor, ...]]
    single: Tensor = attrs.field(
        kw_only=True, converter=lambda value: torch.as_tensor(value, dtype=torch.float32)
    )
    setting: object = static(default=None)
    made: list[int] = attrs.field(factory=list)
    noise: dist.Normal = attrs.field(factory=lambda: dist.Normal(0.0, 1.0))
    text: str = "text"
    late: Tensor = attrs.field(init=False)
    doubled: float = attrs.field(
        init=False, default=attrs.Factory(lambda self: 2.0 * self.factor, takes_self=True)
    )
    inner: Leaf = attrs.field(init=False, factory=Leaf)
    w = PyroSample(dist.Normal(0.0, 1.0))

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "late", torch.full((2,), self.factor))

    @cached_property
    def total(self) -> Tensor:
        return self._private + self.late

    def forward(self) -> Tensor:
        return self.w * self.total


def every_kind() -> Fields:
    one = torch.ones(2)
    return Fields(1.0, one, called=one, parts={"a": (one, one)}, single=one, setting=one)


def test_to_takes_every_kind_of_field(key: random.Key) -> None:
    model = every_kind()
    double = to(model, torch.float64)
    tensors = (double._private, double.named, *double.parts["a"], double.single, double.late)
    assert {value.dtype for value in (*tensors, double.total)} == {torch.float64}
    assert double.noise.loc.dtype == torch.float64
    assert double.setting is model.setting
    assert (double.factor, double.doubled, double.text) == (2.0, 4.0, "text")
    assert apply(double, {}, key).dtype == torch.float64
    assert describe(double).entries[0].prior == "Normal(0, 1)"
    with pytest.raises(DtypeError, match=r"torch\.int64, in which parameters"):
        to(model, torch.int64)


def test_replace_takes_every_kind_of_field(key: random.Key) -> None:
    learnable = replace(
        every_kind(),
        {"w": PyroParam(torch.tensor(1.0)), "inner.w": PyroParam(torch.tensor(1.0))},
    )
    assert (learnable.factor, learnable.doubled) == (2.0, 4.0)
    assert set(init(learnable, key)) == {"w", "inner.w"}
    other = replace(learnable, {"factor": 3.0, "_private": torch.zeros(2), "text": "other"})
    assert (other.factor, other.doubled, other.text) == (6.0, 12.0, "other")
    assert torch.equal(other.late, torch.full((2,), 6.0))
    assert torch.equal(other.total, other.late)
    fixed = replace(other, {"late": torch.zeros(2)})
    assert torch.equal(fixed.late, torch.zeros(2))
    assert set(init(fixed, key)) == {"w", "inner.w"}


def test_to_keeps_what_is_shared(key: random.Key) -> None:
    class Two(Module):
        a: nn.Linear
        b: nn.Linear

    net, tied = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = net.weight
    assert set(init(to(Two(net, tied), torch.float64), key)) == {"a.weight", "a.bias", "b.bias"}


def test_to_keeps_local() -> None:
    class One(Module):
        a = PyroSample(dist.Normal(0.0, 1.0), local=False)
        b = PyroSample(dist.Normal(0.0, 1.0), local=True)

        @PyroSample(local=False)
        def c(self) -> Prior:
            return dist.Normal(0.0, 1.0)

        def forward(self) -> Tensor:
            with pyro.plate("data", 3):
                return self.a + self.b + self.c

    record = trace(to(One(), torch.float64), {}, random.key(0))[1]
    assert [record.latents[name].dim() for name in "abc"] == [0, 1, 0]
