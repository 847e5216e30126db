"""Structure, names and contexts, ported in spirit from Pyro's ``tests/nn/test_module.py``.

Row numbers are those of the table in ``docs/migration.md``.
"""

from __future__ import annotations

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

from purepyro import (
    Module,
    PurepyroError,
    PyroParam,
    PyroSample,
    apply,
    constrain,
    init,
    random,
    replace,
    trace,
)


def names(record: dict[str, Tensor]) -> set[str]:
    return set(record)


# -------------------------------------------------------------------------------- rows 17, 18, 19


class Child(Module):
    """Has a parameter, a random variable, and both with a constraint."""

    u = PyroParam(torch.tensor(1.0))
    v = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    w = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        return self.u + self.v + self.w


class Parent(Module):
    """Children of every kind, and fields of its own."""

    child: Child
    layers: tuple[Child, ...]
    parts: dict[str, Child]
    net: nn.Linear
    x = PyroParam(torch.tensor(3.0))
    y = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        net: Tensor = self.net(torch.ones(2))
        total = self.x + self.y + self.child() + net.sum()
        for layer in self.layers:
            total = total + layer()
        return total + self.parts["left"]()


def parent() -> Parent:
    return Parent(Child(), (Child(), Child()), {"left": Child()}, nn.Linear(2, 1))


class TheirChild(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.tensor(1.0))
        self.v = PyroParamOfPyro(torch.tensor(2.0), constraint=constraints.positive)
        self.w = PyroSampleOfPyro(dist.Normal(0.0, 1.0))

    def forward(self) -> object:
        return self.u + torch.as_tensor(self.v) + torch.as_tensor(self.w)


class TheirParent(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.child = TheirChild()
        self.layers = PyroModule[nn.ModuleList]([TheirChild(), TheirChild()])
        self.parts = PyroModule[nn.ModuleDict]({"left": TheirChild()})
        self.net = nn.Linear(2, 1)
        self.x = nn.Parameter(torch.tensor(3.0))
        self.y = PyroSampleOfPyro(dist.Normal(0.0, 1.0))

    def forward(self) -> object:
        children = [self.child, *self.layers.children(), *self.parts.children()]
        total = self.x + torch.as_tensor(self.y) + self.net(torch.ones(2)).sum()
        return total + sum(child() for child in children)


CHILDREN = ("child", "layers.0", "layers.1", "parts.left")
PARAM_NAMES = {
    "x",
    "net.weight",
    "net.bias",
    *(f"{child}.{name}" for child in CHILDREN for name in "uv"),
}
SAMPLE_NAMES = {"y", *(f"{child}.w" for child in CHILDREN)}


def test_row_17_names_are_dotted_paths(key: random.Key) -> None:
    params = init(parent(), key)
    _, record = trace(parent(), params, key)
    assert names(params) == PARAM_NAMES
    assert names(record.latents) == SAMPLE_NAMES


def test_row_17_and_18_names_are_those_of_pyromodule() -> None:
    tr = poutine.trace(TheirParent(), param_only=False).get_trace()
    params = {name for name, node in tr.nodes.items() if node["type"] == "param"}
    samples = {name for name, node in tr.nodes.items() if node["type"] == "sample"}
    assert samples == SAMPLE_NAMES
    # Pyro marks the parameters of plain torch modules by `$$$`; here a dot is a dot.
    assert {name for name in params if "$$$" in name} == {"net$$$weight", "net$$$bias"}
    assert {name.replace("$$$", ".") for name in params} == PARAM_NAMES


def test_row_17_the_model_as_pyro_model_has_the_same_names() -> None:
    tr = poutine.trace(parent()).get_trace()
    assert {n for n, node in tr.nodes.items() if node["type"] == "param"} == PARAM_NAMES
    assert {n for n, node in tr.nodes.items() if node["type"] == "sample"} == SAMPLE_NAMES


def test_row_17_prefix_of_a_root_is_a_field(key: random.Key) -> None:
    class Root(Module):
        foo: Child

        def forward(self) -> Tensor:
            return self.foo()

    _, record = trace(Root(Child()), init(Root(Child()), key), key)
    assert names(record.latents) == {"foo.w"}


def test_row_18_torch_modules_anywhere(key: random.Key) -> None:
    class Nets(Module):
        one: nn.Module
        many: tuple[nn.Module, ...]
        deep: nn.Sequential

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.deep(self.many[1](self.many[0](self.one(x))))
            return y

    linears = [nn.Linear(2, 2, bias=False) for _ in range(4)]
    nets = Nets(linears[0], (linears[1], nn.ReLU()), nn.Sequential(linears[2], nn.Tanh()))
    params = init(nets, key)
    assert set(params) == {"one.weight", "many.0.weight", "deep.0.weight"}

    x = torch.ones(2)
    expected = torch.tanh(linears[2](torch.relu(linears[1](linears[0](x)))))
    torch.testing.assert_close(apply(nets, params, key, x), expected.detach())
    zeros = {name: torch.zeros_like(value) for name, value in params.items()}
    assert apply(nets, zeros, key, x).equal(torch.zeros(2)), "the dict counts, not the module"


def test_row_18_same_torch_parameter_twice_is_one(key: random.Key) -> None:
    class Tied(Module):
        encode: nn.Linear
        decode: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.decode(self.encode(x))
            return y

    a, b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    b.weight = a.weight
    params = init(Tied(a, b), key)
    assert set(params) == {"encode.weight"}
    out = apply(Tied(a, b), {"encode.weight": 3 * torch.eye(2)}, key, torch.ones(2))
    assert out.tolist() == [9.0, 9.0]


def test_row_18_frozen_torch_parameter_is_a_setting(key: random.Key) -> None:
    class Net(Module):
        net: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x)
            return y

    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    assert set(init(Net(net), key)) == {"net.bias"}
    out = apply(Net(net), {"net.bias": torch.zeros(2)}, key, torch.ones(2))
    torch.testing.assert_close(out, net.weight.sum(-1))


def test_row_19_unconstrained_and_constrained_have_the_same_names(key: random.Key) -> None:
    params = init(parent(), key)
    constrained = constrain(parent(), params)
    assert list(params) == list(constrained)
    for name, value in params.items():
        expected = value.exp() if name.endswith(".v") else value
        torch.testing.assert_close(constrained[name], expected)

    theirs = TheirParent()
    torch_names = {name for name, _ in theirs.named_parameters()}
    assert torch_names == {
        f"{name}_unconstrained" if name.endswith(".v") else name for name in PARAM_NAMES
    }
    assert {name for name, _ in theirs.named_pyro_params()} == PARAM_NAMES


# -------------------------------------------------------------------------------- rows 20, 21, 22


def test_row_20_nothing_is_stored_on_modules(key: random.Key) -> None:
    model = parent()
    before = [dict(module.__dict__) for module in (model, model.child, model.layers[0])]
    params = init(model, key)
    trace(model, params, key)
    poutine.trace(model).get_trace()
    after = [dict(module.__dict__) for module in (model, model.child, model.layers[0])]
    assert before == after


def test_row_20_one_context_for_the_whole_tree(key: random.Key) -> None:
    class Both(Module):
        child: Child

        def forward(self) -> tuple[Tensor, Tensor]:
            return self.child.w, self.child() - self.child.u - self.child.v

    direct, through_call = apply(Both(Child()), init(Both(Child()), key), key)
    torch.testing.assert_close(direct, through_call)


def test_row_20_a_failed_run_leaves_nothing(key: random.Key) -> None:
    class Fails(Module):
        z = PyroSample(dist.Normal(0.0, 1.0), local=True)

        def forward(self, fail: bool) -> Tensor:
            with pyro.plate("data", 2):
                if fail:
                    raise ZeroDivisionError
                return self.z

    model = Fails()
    with pytest.raises(ZeroDivisionError):
        apply(model, {}, key, True)
    assert poutine.runtime._PYRO_STACK == []
    with pytest.raises(PurepyroError, match="outside a run"):
        _ = model.z
    assert apply(model, {}, key, False).shape == (2,)


def test_row_21_calls_nest(key: random.Key) -> None:
    class Doubles(Module):
        inner: Child

        def forward(self, times: int) -> Tensor:
            return self.inner() if times == 0 else 2 * self(times - 1)

    model = Doubles(Child())
    params = init(model, key)
    base, deep = apply(model, params, key, 0), apply(model, params, key, 3)
    torch.testing.assert_close(deep, 8 * base)


class Methods(Module):
    """No decorator on the method, as ``pyro_method`` would be."""

    child: Child
    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.z

    def inverse(self, y: Tensor, *, shift: float = 0.0) -> Tensor:
        return (y - shift) / self.z + 0 * self.child()


def test_row_22_any_method_runs(key: random.Key) -> None:
    model = Methods(Child())
    params = init(model, key)
    y = apply(model, params, key, torch.tensor(3.0))
    x, record = trace(model.inverse, params, key, y + 1, shift=1.0)
    torch.testing.assert_close(x, torch.tensor(3.0))
    assert names(record.latents) == {"z", "child.w"}


def test_row_22_method_of_a_part_has_names_from_there(key: random.Key) -> None:
    model = Methods(Child())
    _, record = trace(model.child.forward, init(model.child, key), key)
    assert names(record.latents) == {"w"}


# ---------------------------------------------------------------------------- rows 23, 24, 25, 26


class Pair(Module):
    """Two children, whose names begin alike."""

    a: Child
    ab: Child

    def forward(self) -> Tensor:
        return self.a() - self.ab()


def test_row_23_a_module_that_has_run_can_become_a_part(key: random.Key) -> None:
    child, other = Child(), Pair(Child(), Child())
    apply(child, init(child, key), key)
    apply(other, init(other, key), key)

    class Grand(Module):
        pair: Pair
        child: Child

        def forward(self) -> Tensor:
            return self.pair() + self.child()

    _, record = trace(Grand(other, child), init(Grand(other, child), key), key)
    assert names(record.latents) == {"pair.a.w", "pair.ab.w", "child.w"}


def test_row_24_shared_submodule_is_one_site_under_its_first_path(key: random.Key) -> None:
    child = Child()
    shared = Pair(child, child)
    params = init(shared, key)
    difference, record = trace(shared, params, key)
    assert set(params) == {"a.u", "a.v"}
    assert names(record.latents) == {"a.w"}
    assert float(difference) == 0.0

    apart = Pair(Child(), Child())
    difference, record = trace(apart, init(apart, key), key)
    assert names(record.latents) == {"a.w", "ab.w"}
    assert float(difference) != 0.0


def test_row_25_replace_is_the_way_to_change(key: random.Key) -> None:
    model = parent()
    learned = replace(
        model, {"child.w": PyroParam(torch.tensor(7.0)), "y": PyroParam(lambda: torch.tensor(8.0))}
    )
    params = init(learned, key)
    assert set(params) == PARAM_NAMES | {"child.w", "y"}
    _, record = trace(learned, params, key)
    assert names(record.latents) == SAMPLE_NAMES - {"child.w", "y"}

    fixed = replace(learned, {"layers.1.u": PyroSample(dist.Delta(torch.tensor(0.0)))})
    assert set(init(fixed, key)) == set(params) - {"layers.1.u"}
    back = replace(fixed, {"y": PyroSample(dist.Normal(100.0, 1.0))})
    _, record = trace(back, init(back, key), key)
    assert float(record.latents["y"]) > 90

    assert set(init(model, key)) == PARAM_NAMES, "the first model stays as it is"


def test_row_25_replace_submodules(key: random.Key) -> None:
    other = replace(Child(), {"u": PyroParam(torch.tensor(5.0))})
    model = replace(parent(), {"layers.0": other, "parts.left": other})
    values = constrain(model, init(model, key))
    assert float(values["layers.0.u"]) == 5.0
    assert float(values["layers.1.u"]) == 1.0
    assert "parts.left.u" not in values, "the same instance twice is one"


def test_row_25_a_new_value_of_a_parameter_is_put_into_the_dict(key: random.Key) -> None:
    model = Child()
    params = init(model, key)
    params = {**params, "v": torch.tensor(4.0).log()}
    torch.testing.assert_close(constrain(model, params)["v"], torch.tensor(4.0))


@pytest.mark.parametrize("value", [torch.tensor(1.0), PyroParam(torch.tensor(1.0)), Child(), 1])
@pytest.mark.parametrize("name", ["x", "y", "child", "net", "new"])
def test_row_25_assignment_is_an_error(name: str, value: object) -> None:
    with pytest.raises(AttributeError, match=rf"Parent\.{name} was assigned.*replace\(model"):
        setattr(parent(), name, value)


@pytest.mark.parametrize("name", ["x", "y", "child"])
def test_row_26_deletion_is_an_error(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"Parent\.{name} was deleted.*replace\(model"):
        delattr(parent(), name)


def test_row_26_changing_a_part_leaves_names_that_begin_alike(key: random.Key) -> None:
    model = Pair(Child(), Child())
    changed = replace(model, {"a": replace(Child(), {"u": PyroSample(dist.Normal(0.0, 1.0))})})
    assert set(init(changed, key)) == {"a.v", "ab.u", "ab.v"}
    assert changed.ab is model.ab


# ------------------------------------------------------------------------------- rows 27 to 31


class Random(Module):
    """Starts at random."""

    u = PyroParam(lambda: torch.randn(3))

    def forward(self) -> Tensor:
        return self.u


def test_row_27_a_fresh_start_is_another_init(key: random.Key) -> None:
    params = init(Random(), key)
    trained = {"u": params["u"] + 1}
    apply(Random(), trained, key)
    assert init(Random(), key)["u"].equal(params["u"])
    assert init(Random(), random.key(1))["u"].ne(params["u"]).all()


def test_row_28_two_instances_share_nothing(key: random.Key) -> None:
    class One(Module):
        start: float

        @PyroParam
        def x(self) -> Tensor:
            return torch.tensor(self.start)

        def forward(self) -> Tensor:
            return self.x

    for start in (1.0, 2.0):
        model = One(start)
        assert float(apply(model, init(model, key), key)) == start
    assert len(pyro.get_param_store()) == 0


class TheirOne(PyroModule):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.x = PyroParamOfPyro(torch.tensor(start))

    def forward(self) -> Tensor:
        return torch.as_tensor(self.x).detach()


def test_row_28_pyros_store_is_shared() -> None:
    assert [float(TheirOne(1.0)()), float(TheirOne(2.0)())] == [1.0, 1.0]


def test_row_28_two_pyromodules_share_nothing_under_apply(key: random.Key) -> None:
    for start in (1.0, 2.0):
        model = TheirOne(start)
        assert float(apply(model, init(model, key), key)) == start


def test_row_28_the_store_is_neither_read_nor_written(key: random.Key) -> None:
    pyro.param("u", torch.full((3,), 99.0))
    params = init(Random(), key)
    assert apply(Random(), params, key).equal(params["u"])
    assert pyro.param("u").tolist() == [99.0] * 3


@pytest.mark.parametrize("local", [False, True])
def test_row_29_module_local_params_is_the_only_mode(local: bool, key: random.Key) -> None:
    with pyro.settings.context(module_local_params=local):
        ours, theirs = Child(), TheirChild()
        values = {}
        for model in (ours, theirs):
            params = init(model, key)
            result, record = trace(model, params, key)
            values[type(model)] = (params, result, record.latents)
        assert pyro.settings.get("module_local_params") is local
    (params, result, latents), (params2, result2, latents2) = values.values()
    assert set(params) == set(params2) == {"u", "v"}
    assert result.equal(result2)
    assert latents["w"].equal(latents2["w"])
    assert len(pyro.get_param_store()) == 0


class Free(Module):
    """A ``pyro.param`` statement of its own, which PyroModule's local mode refuses."""

    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.z + pyro.param("free", torch.zeros(len(x))).sum()


def test_row_30_free_parameters_need_a_run(key: random.Key) -> None:
    model, x = Free(), torch.ones(4)
    assert init(model, key) == {}
    with pytest.raises(LookupError, match=r"no 'free'.*init\(model, key, \*args\)"):
        apply(model, {}, key, x)
    params = init(model, key, x)
    assert params["free"].shape == (4,)
    gradient = torch.func.grad(lambda p: apply(model, p, key, x))(params)
    assert gradient["free"].equal(torch.ones(4))


def test_row_31_params_are_checked_against_the_declarations(key: random.Key) -> None:
    model = Child()
    params = init(model, key)
    with pytest.raises(LookupError, match=r"The params have no 'v'"):
        apply(model, {"u": params["u"]}, key)
    with pytest.raises(LookupError, match=r"'uu', which names no parameter.*Did you mean 'u'"):
        apply(model, {**params, "uu": torch.ones(())}, key)
    with pytest.raises(ValueError, match=r"'u' has the shape \[2\].*declares \[\]"):
        apply(model, {**params, "u": torch.ones(2)}, key)
    with pytest.raises(TypeError, match=r"'u' is float64\[\].*declares float32"):
        apply(model, {**params, "u": torch.ones((), dtype=torch.float64)}, key)
