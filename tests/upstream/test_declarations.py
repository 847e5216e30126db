"""Declarations, ported in spirit from Pyro's ``tests/nn/test_module.py``.

Row numbers are those of the table in ``docs/migration.md``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.nn import PyroModule
from pyro.nn import PyroParam as PyroParamOfPyro
from pyro.nn import PyroSample as PyroSampleOfPyro
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from purepyro import (
    Module,
    Prior,
    PurepyroError,
    PyroParam,
    PyroSample,
    apply,
    constrain,
    init,
    log_density,
    random,
    replace,
    trace,
    unconstrain,
)

# ------------------------------------------------------------------------------------------ row 1


class Learned(Module):
    """One parameter, whose declaration the tests replace."""

    x = PyroParam(torch.tensor(1.0))

    def forward(self) -> Tensor:
        return self.x


def learned(value: Tensor, constraint: Constraint) -> Learned:
    return replace(Learned(), {"x": PyroParam(value, constraint=constraint)})


def spread(low: float, high: float, shape: tuple[int, ...]) -> Tensor:
    """Numbers strictly between ``low`` and ``high``, no two the same."""
    count = max(torch.Size(shape).numel(), 1)
    return torch.linspace(low, high, count + 2)[1:-1].reshape(shape)


def lower(shape: tuple[int, ...]) -> Tensor:
    """Lower-triangular matrices with a positive diagonal."""
    diagonal = torch.diag_embed(spread(0.5, 2.0, shape[:-1]))
    return spread(-1.0, 1.0, shape).tril(-1) + diagonal


def corr(shape: tuple[int, ...]) -> Tensor:
    return torch.nn.functional.normalize(lower(shape), dim=-1)


def definite(shape: tuple[int, ...]) -> Tensor:
    return lower(shape) @ lower(shape).mT


def unit_lower(shape: tuple[int, ...]) -> Tensor:
    return spread(-1.0, 1.0, shape).tril(-1) + torch.eye(shape[-1]).expand(shape)


def simplex(shape: tuple[int, ...]) -> Tensor:
    return spread(-1.0, 1.0, shape).softmax(-1)


SCALARS: list[tuple[Constraint, float, float]] = [
    (constraints.real, -2.0, 2.0),
    (constraints.positive, 0.0, 3.0),
    (constraints.softplus_positive, 0.0, 3.0),
    (constraints.nonnegative, 0.0, 3.0),
    (constraints.unit_interval, 0.0, 1.0),
    (constraints.greater_than(2), 2.0, 5.0),
    (constraints.greater_than_eq(2), 2.0, 5.0),
    (constraints.less_than(-1), -5.0, -1.0),
    (constraints.interval(-3, 3), -3.0, 3.0),
]
MATRICES: list[tuple[Constraint, Callable[[tuple[int, ...]], Tensor]]] = [
    (constraints.lower_cholesky, lower),
    (constraints.softplus_lower_cholesky, lower),
    (constraints.unit_lower_cholesky, unit_lower),
    (constraints.corr_cholesky, corr),
    (constraints.positive_definite, definite),
]
VECTORS: list[tuple[Constraint, Callable[[tuple[int, ...]], Tensor]]] = [
    (constraints.simplex, simplex),
    (constraints.real_vector, lambda shape: spread(-2.0, 2.0, shape)),
    (constraints.independent(constraints.positive, 1), lambda shape: spread(0.0, 3.0, shape)),
    (constraints.ordered_vector, lambda shape: spread(-2.0, 2.0, shape)),
    (constraints.positive_ordered_vector, lambda shape: spread(0.0, 2.0, shape)),
]
CASES = [
    *(
        pytest.param(c, spread(a, b, shape), id=f"{c}-{list(shape)}")
        for c, a, b in SCALARS
        for shape in [(), (4,), (3, 2)]
    ),
    *(
        pytest.param(c, make(shape), id=f"{c}-{list(shape)}")
        for c, make in VECTORS
        for shape in [(3,), (2, 3)]
    ),
    *(
        pytest.param(c, make(shape), id=f"{c}-{list(shape)}")
        for c, make in MATRICES
        for shape in [(2, 2), (4, 2, 2)]
    ),
]


@pytest.mark.parametrize(("constraint", "value"), CASES)
def test_row_1_constrained_parameter(
    constraint: Constraint, value: Tensor, key: random.Key
) -> None:
    model = learned(value, constraint)
    params = init(model, key)
    constrained = constrain(model, params)
    assert list(params) == list(constrained) == ["x"]
    torch.testing.assert_close(constrained["x"], value)
    assert bool(constraint.check(constrained["x"]).all())
    torch.testing.assert_close(unconstrain(model, constrained)["x"], params["x"])
    torch.testing.assert_close(apply(model, params, key), value)

    theirs = PyroModule[nn.Module]()
    theirs.x = PyroParamOfPyro(value, constraint=constraint)
    (unconstrained,) = theirs.parameters()
    torch.testing.assert_close(params["x"], unconstrained.detach())


@pytest.mark.parametrize(("constraint", "value"), CASES)
def test_row_1_any_unconstrained_value_is_inside(
    constraint: Constraint, value: Tensor, key: random.Key
) -> None:
    model = learned(value, constraint)
    start = init(model, key)["x"]
    moved = {"x": start + random.normal(key, start.shape)}
    x = apply(model, moved, key)
    assert x.shape == value.shape
    assert bool(constraint.check(x).all())
    assert not torch.allclose(x, value)


@pytest.mark.parametrize(
    ("constraint", "bad"),
    [
        (constraints.positive, torch.tensor(-1.0)),
        (constraints.unit_interval, torch.tensor([0.5, 1.5])),
        (constraints.simplex, torch.tensor([0.5, 0.6])),
        (constraints.lower_cholesky, torch.ones(2, 2)),
    ],
    ids=str,
)
def test_row_1_value_outside_is_refused(
    constraint: Constraint, bad: Tensor, key: random.Key
) -> None:
    with pytest.raises(ValueError, match=r"'x'.*does not satisfy its constraint"):
        init(learned(bad, constraint), key)


# ------------------------------------------------------------------------------------ rows 2 to 5


class Twice(Module):
    """Reads everything it has twice."""

    scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    z = PyroSample(dist.Normal(0.0, 1.0))

    @PyroSample
    def twice(self) -> Tensor:
        return 2 * self.scale

    def forward(self) -> tuple[Tensor, ...]:
        return self.scale, self.scale, self.z, self.z, self.twice, self.twice


def test_row_2_all_fields_are_the_same_tensor_in_a_run(key: random.Key) -> None:
    a, b, c, d, e, f = apply(Twice(), init(Twice(), key), key)
    assert a is b
    assert c is d
    assert e is f


def test_row_2_the_next_run_sees_the_parameters_it_gets(key: random.Key) -> None:
    first = apply(Twice(), {"scale": torch.tensor(0.0)}, key)
    second = apply(Twice(), {"scale": torch.tensor(1.0)}, key)
    assert first[0].item() == 1.0
    assert second[0].item() == pytest.approx(2.718281828)
    assert first[2].equal(second[2])


def test_row_3_lazy_parameter_is_computed_by_init(key: random.Key) -> None:
    calls: list[int] = []

    def start() -> Tensor:
        calls.append(1)
        return torch.ones(3)

    class Lazy(Module):
        y = PyroParam(start, constraint=constraints.positive)

        def forward(self) -> Tensor:
            return self.y

    model = Lazy()
    assert calls == []
    params = init(model, key)
    assert params["y"].shape == (3,)
    assert calls == [1]
    for _ in range(3):
        apply(model, params, key)
    after_three = len(calls)
    apply(model, params, key)
    assert len(calls) == after_three, "an apply does not start the parameter again"


def test_row_3_random_start_depends_on_the_key(key: random.Key) -> None:
    class Lazy(Module):
        y = PyroParam(lambda: torch.randn(3))
        z = PyroParam(lambda: torch.randn(3))

    before = torch.get_rng_state()
    first, again, other = init(Lazy(), key), init(Lazy(), key), init(Lazy(), random.key(1))
    assert first["y"].equal(again["y"])
    assert not first["y"].equal(other["y"])
    assert not first["y"].equal(first["z"])
    assert torch.get_rng_state().equal(before)


class Decorated(Module):
    """Every declaration by decorator, as in upstream's ``DecoratorModel``."""

    size: int

    @PyroParam
    def x(self) -> Tensor:
        return torch.zeros(self.size)

    @PyroParam(constraint=constraints.positive)
    def y(self) -> Tensor:
        return torch.full((self.size,), 3.0)

    @PyroParam(constraint=constraints.real, event_dim=1)
    def z(self) -> Tensor:
        return torch.zeros(self.size, 2)

    @PyroSample
    def s(self) -> dist.Normal:
        return dist.Normal(0.0, 1.0)

    @PyroSample
    def t(self) -> Prior:
        return dist.Normal(self.s, self.y).to_event(1)

    @PyroSample
    def u(self) -> Tensor:
        return self.s**2

    def forward(self) -> tuple[Tensor, ...]:
        return self.x, self.y, self.z, self.t, self.u


def test_row_4_decorated_parameters_are_known_from_the_class(key: random.Key) -> None:
    params = init(Decorated(2), key)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "x": (2,),
        "y": (2,),
        "z": (2, 2),
    }

    class Theirs(PyroModule):
        # Pyro's class is a NamedTuple, which type checkers refuse as a decorator of a method.
        @PyroParamOfPyro  # type: ignore[arg-type]
        def x(self) -> Tensor:
            return torch.zeros(2)

    assert [name for name, _ in Theirs().named_parameters()] == [], "not before the first read"


def test_row_5_decorator_takes_constraint_and_event_dim(key: random.Key) -> None:
    model = Decorated(2)
    params = init(model, key)
    torch.testing.assert_close(params["y"], torch.full((2,), 3.0).log())
    assert constrain(model, params)["y"].tolist() == pytest.approx([3.0, 3.0])
    assert Decorated.y.constraint is constraints.positive
    assert (Decorated.x.event_dim, Decorated.z.event_dim) == (None, 1)


# ----------------------------------------------------------------------------------- rows 6 to 12


def test_row_6_prior_is_a_distribution_or_a_callable(key: random.Key) -> None:
    class Sampled(Module):
        loc: float
        a = PyroSample(dist.Normal(0.0, 1.0))
        b = PyroSample(lambda self: dist.Normal(self.loc, 1.0))
        c = PyroSample(lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1))

        def forward(self) -> Tensor:
            return self.a + self.b + self.c

    _, record = trace(Sampled(100.0), {}, key)
    assert {n: tuple(v.shape) for n, v in record.latents.items()} == {"a": (), "b": (), "c": (2,)}
    assert 90 < float(record.latents["b"]) < 110


@pytest.mark.parametrize("prior", [lambda self, other: None, 1.0, torch.tensor(1.0), dist.Normal])
def test_row_6_anything_else_is_refused(prior: object) -> None:
    declare: Any = PyroSample
    with pytest.raises(TypeError, match="neither a distribution of Pyro nor a callable"):
        declare(prior)


class Inner(Module):
    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        return self.z


class Outer(Module):
    inner: Inner

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.inner(), self.inner.z, self.inner()


def test_row_7_drawn_once_per_outermost_call(key: random.Key) -> None:
    (a, b, c), record = trace(Outer(Inner()), {}, key)
    assert a is b is c
    assert list(record.latents) == ["inner.z"]
    other, _, _ = apply(Outer(Inner()), {}, random.key(1))
    assert not a.equal(other)


def test_row_7_order_of_reads_does_not_matter(key: random.Key) -> None:
    class AB(Module):
        a = PyroSample(dist.Normal(0.0, 1.0))
        b = PyroSample(dist.Normal(0.0, 1.0))
        first: str

        def forward(self) -> dict[str, Tensor]:
            names = sorted(["a", "b"], reverse=self.first == "b")
            return {name: getattr(self, name) for name in names}

    ab, ba = apply(AB("a"), {}, key), apply(AB("b"), {}, key)
    assert list(ab) == ["a", "b"]
    assert list(ba) == ["b", "a"]
    assert ab["a"].equal(ba["a"])
    assert ab["b"].equal(ba["b"])


@pytest.mark.parametrize("name", ["z", "scale", "twice"])
def test_row_8_reading_outside_a_run_is_an_error(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"Twice\.{name} was read outside a run"):
        getattr(Twice(), name)


class Hierarchy(Module):
    """Reads the leaf first; its prior needs the rest."""

    spread = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    leaf = PyroSample(lambda self: dist.Normal(self.mid, self.spread))
    mid = PyroSample(lambda self: dist.Normal(self.root, 1.0))
    root = PyroSample(dist.Normal(5.0, 1.0))

    def forward(self) -> Tensor:
        return self.leaf


def test_row_9_sites_come_in_the_order_of_dependence(key: random.Key) -> None:
    params = init(Hierarchy(), key)
    leaf, record = trace(Hierarchy(), params, key)
    assert list(record.latents) == ["root", "mid", "leaf"]
    root, mid = record.latents["root"], record.latents["mid"]
    expected = (
        dist.Normal(5.0, 1.0).log_prob(root)
        + dist.Normal(root, 1.0).log_prob(mid)
        + dist.Normal(mid, 2.0).log_prob(leaf)
    )
    torch.testing.assert_close(record.log_density, expected)
    assert record.latents["leaf"] is leaf


def test_row_9_same_density_as_pyromodule(key: random.Key) -> None:
    class Theirs(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.spread = PyroParamOfPyro(torch.tensor(2.0), constraint=constraints.positive)
            self.root = PyroSampleOfPyro(dist.Normal(5.0, 1.0))
            self.mid = PyroSampleOfPyro(lambda self: dist.Normal(self.root, 1.0))
            self.leaf = PyroSampleOfPyro(lambda self: dist.Normal(self.mid, self.spread))

        def forward(self) -> object:
            return self.leaf

    _, record = trace(Hierarchy(), init(Hierarchy(), key), key)
    at = poutine.trace(poutine.condition(Theirs(), data=record.latents)).get_trace()
    torch.testing.assert_close(record.log_density, at.log_prob_sum())


def test_row_9_a_circle_is_named(key: random.Key) -> None:
    class Circle(Module):
        a = PyroSample(lambda self: dist.Normal(self.b, 1.0))
        b = PyroSample(lambda self: dist.Normal(self.a, 1.0))

        def forward(self) -> Tensor:
            return self.a

    with pytest.raises(PurepyroError, match="'a' -> 'b' -> 'a' need each other in a circle"):
        apply(Circle(), {}, key)


def test_row_10_prior_with_a_site_of_its_own(key: random.Key) -> None:
    class Own(Module):
        @PyroSample
        def x(self) -> dist.Normal:
            return dist.Normal(pyro.sample("hyper", dist.Normal(0.0, 1.0)), 1.0)

        def forward(self) -> Tensor:
            return self.x + self.x

    result, record = trace(Own(), {}, key)
    assert list(record.latents) == ["hyper", "x"]
    torch.testing.assert_close(result, 2 * record.latents["x"])


def test_row_11_tensor_prior_is_deterministic(key: random.Key) -> None:
    params = init(Decorated(2), key)
    (*_, u), record = trace(Decorated(2), params, key)
    assert list(record.deterministic) == ["u"]
    assert list(record.latents) == ["s", "t"]
    assert u.equal(record.latents["s"] ** 2)
    assert float(record.log_densities["u"]) == 0.0

    node = poutine.trace(Decorated(2)).get_trace().nodes["u"]
    assert node["type"] == "sample"
    assert node["infer"] == {"_deterministic": True}


def test_row_12_decorated_priors(key: random.Key) -> None:
    model = Decorated(2)
    params = init(model, key)
    _, record = trace(model, params, key)
    s, t = record.latents["s"], record.latents["t"]
    expected = dist.Normal(0.0, 1.0).log_prob(s) + dist.Normal(s, 3.0).log_prob(t).sum()
    torch.testing.assert_close(record.log_density, expected)
    torch.testing.assert_close(log_density(model, params, record.latents), expected)


def test_row_12_decorated_priors_survive_pickling(key: random.Key) -> None:
    model = Decorated(2)
    copy = pickle.loads(pickle.dumps(model))
    params = init(model, key)
    for ours, theirs in zip(
        apply(model, params, key), apply(copy, init(copy, key), key), strict=True
    ):
        assert ours.equal(theirs)


# ---------------------------------------------------------------------------------- rows 13 to 16


def test_row_13_class_level_forms(key: random.Key) -> None:
    class Normal(Module):
        a = PyroSample(dist.Normal(0.0, 1.0))
        b = PyroSample(lambda self: dist.Normal(self.c, 1.0))
        c = PyroParam(torch.tensor(1.0))

        def forward(self) -> Tensor:
            return self.a + self.b

    params = init(Normal(), key)
    _, record = trace(Normal(), params, key)
    assert list(params) == ["c"]
    assert list(record.latents) == ["a", "b"]
    assert isinstance(Normal.a, PyroSample)
    assert isinstance(Normal.c, PyroParam)

    class Theirs(PyroModule):
        a = PyroSampleOfPyro(dist.Normal(0.0, 1.0))

        def forward(self) -> object:
            return self.a

    with pytest.raises(AttributeError, match="has no attribute 'a'"):
        Theirs()()


def test_row_14_nn_parameter_is_declared_by_pyroparam(key: random.Key) -> None:
    value = nn.Parameter(torch.ones(2))

    class Plain(Module):
        x = PyroParam(value)

        def forward(self) -> Tensor:
            return self.x.sum()

    params = init(Plain(), key)
    assert params["x"] is not value
    assert not params["x"].requires_grad
    gradient = torch.func.grad(lambda p: apply(Plain(), p, key))(params)
    assert gradient["x"].equal(torch.ones(2))


def test_row_14_nn_parameter_in_the_class_body_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Plain\.x is a Tensor.*PyroParam\(tensor\)"):

        class Plain(Module):
            x = nn.Parameter(torch.ones(2))


def test_row_14_nn_parameter_in_a_plain_field_is_not_lost() -> None:
    # Silently a constant, it would never be trained.
    class Plain(Module):
        x: Tensor

    with pytest.raises(TypeError, match=r"Plain\.x.*Parameter"):
        Plain(nn.Parameter(torch.ones(2)))


class Subsampled(Module):
    """One parameter read inside a plate of 10, of which 3 are taken."""

    x = PyroParam(torch.tensor(1.0))

    def forward(self) -> tuple[Tensor, Tensor]:
        with pyro.plate("data", 10, subsample_size=3) as index:
            return self.x, index


@pytest.mark.parametrize(
    ("shape", "event_dim", "seen"),
    [
        ((10,), 0, (3,)),
        ((10,), None, (10,)),
        ((10, 2), 1, (3, 2)),
        ((10, 2), None, (10, 2)),
        ((2,), 1, (2,)),
    ],
)
def test_row_15_event_dim_says_what_a_plate_subsamples(
    shape: tuple[int, ...], event_dim: int | None, seen: tuple[int, ...], key: random.Key
) -> None:
    value = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    model = replace(Subsampled(), {"x": PyroParam(value, event_dim=event_dim)})
    params = init(model, key)
    assert params["x"].shape == shape
    x, index = apply(model, params, key)
    assert x.shape == seen
    torch.testing.assert_close(x, value[index] if seen != shape else value)

    class Theirs(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.x = PyroParamOfPyro(value, event_dim=event_dim)

        def forward(self) -> object:
            with pyro.plate("data", 10, subsample_size=3):
                return self.x

    theirs = Theirs()()
    assert isinstance(theirs, Tensor)
    assert theirs.shape == seen


def test_row_15_gradient_reaches_the_subsample_only(key: random.Key) -> None:
    model = replace(
        Subsampled(),
        {"x": PyroParam(torch.ones(10), constraint=constraints.positive, event_dim=0)},
    )
    params = init(model, key)
    _, index = apply(model, params, key)
    gradient = torch.func.grad(lambda p: apply(model, p, key)[0].sum())(params)["x"]
    expected = torch.zeros(10).index_fill(0, index, 1.0)
    torch.testing.assert_close(gradient, expected)


class Local(Module):
    """The tutorial's rule: what is first read in a plate is local to it."""

    early: bool
    z = PyroSample(dist.Normal(0.0, 1.0), local=True)  # None would warn

    def forward(self) -> tuple[Tensor, Tensor]:
        if self.early:
            _ = self.z
        with pyro.plate("data", 4):
            inside = self.z
        return inside, self.z


@pytest.mark.parametrize(("early", "shape"), [(False, (4,)), (True, ())])
def test_row_16_first_read_in_a_plate_is_local(
    early: bool, shape: tuple[int, ...], key: random.Key
) -> None:
    (inside, after), record = trace(Local(early), {}, key)
    assert inside is after
    assert inside.shape == record.log_densities["z"].shape == shape
    node = poutine.trace(Local(early)).get_trace().nodes["z"]
    assert [frame.name for frame in node["cond_indep_stack"]] == ([] if early else ["data"])
