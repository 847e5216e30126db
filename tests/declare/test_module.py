"""Modules: construction, the tree they form, and what they refuse."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import ClassVar, NamedTuple

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from models import BayesianLinear, regression
from purepyro import Module, PyroParam, PyroSample, apply, init, random, static, trace
from purepyro._errors import DeclarationError, FrozenError, OutsideRunError


class Leaf(Module):
    w = PyroSample(dist.Normal(0.0, 1.0))
    b = PyroParam(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w + self.b


class Pair(NamedTuple):
    first: Leaf
    second: Leaf


def test_fields_are_positional_or_keyword() -> None:
    for model in (BayesianLinear(3, 1), BayesianLinear(in_features=3, out_features=1)):
        assert (model.in_features, model.out_features) == (3, 1)
    with pytest.raises(TypeError, match=r"out_features"):
        BayesianLinear(3)  # type: ignore[call-arg]  # pyright: ignore


def test_defaults_factories_and_class_variables() -> None:
    class Net(Module):
        width: int = 3
        sizes: list[int] = attrs.field(factory=lambda: [1, 2])
        version: ClassVar[str] = "1"
        name = "a plain class attribute"

    assert Net().width == 3
    assert Net().sizes == [1, 2]
    assert Net().sizes is not Net().sizes
    assert [field.name for field in attrs.fields(Net)] == ["width", "sizes"]


def test_inheritance_adds_and_overrides_declarations(key: random.Key) -> None:
    class Child(Leaf):
        c = PyroParam(torch.ones(2))
        w = PyroParam(torch.tensor(5.0))

    assert set(init(Child(), key)) == {"b", "c", "w"}
    assert set(init(Leaf(), key)) == {"b"}


def test_a_plain_attribute_hides_an_inherited_declaration(key: random.Key) -> None:
    class Fixed(Leaf):
        w = 2.0  # type: ignore[assignment]  # pyright: ignore

    assert apply(Fixed(), init(Fixed(), key), key, torch.ones(())) == 2.0


def test_containers_give_dotted_names(key: random.Key) -> None:
    class Deep(Module):
        row: tuple[Leaf, ...]
        column: list[Leaf]
        table: dict[str, list[Leaf]]
        pair: Pair

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.pair, Pair)
            leaves = [*self.row, *self.column, *self.table["a"], *self.pair]
            return sum((leaf(x) for leaf in leaves), start=torch.zeros(()))

    model = Deep((Leaf(), Leaf()), [Leaf()], {"a": [Leaf()]}, Pair(Leaf(), Leaf()))
    params = init(model, key)
    paths = ["row.0", "row.1", "column.0", "table.a.0", "pair.0", "pair.1"]
    assert set(params) == {f"{path}.b" for path in paths}
    _, record = trace(model, params, key, torch.ones(()))
    assert set(record.latents) == {f"{path}.w" for path in paths}


def test_a_shared_submodule_is_one_site_under_its_first_path(key: random.Key) -> None:
    class Shared(Module):
        one: Leaf
        two: Leaf

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.two(x), self.one(x)

    leaf = Leaf()
    model = Shared(leaf, leaf)
    params = init(model, key)
    assert set(params) == {"one.b"}
    (two, one), record = trace(model, params, key, torch.ones(()))
    assert set(record.latents) == {"one.w"}
    assert torch.equal(one, two)


def test_containers_are_the_modules_own() -> None:
    class Net(Module):
        layers: list[Leaf]

    layers = [Leaf()]
    model = Net(layers)
    layers.append(Leaf())
    assert len(model.layers) == 1


def test_static_fields_take_no_part(key: random.Key) -> None:
    class Guide(Module):
        model: Leaf = static()
        rate: float = static(default=0.5)

        def forward(self) -> float:
            return self.rate

    guide = Guide(Leaf())
    assert init(guide, key) == {}
    assert apply(guide, {}, key) == 0.5


def test_tensor_fields_are_settings(key: random.Key) -> None:
    class Shift(Module):
        by: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return x + self.by

    model = Shift(torch.ones(2))
    assert init(model, key) == {}
    assert torch.equal(apply(model, {}, key, torch.zeros(2)), torch.ones(2))


def test_a_module_never_changes() -> None:
    model = regression()
    with pytest.raises(FrozenError, match=r"BayesianRegression\.linear was assigned.*replace\("):
        model.linear = BayesianLinear(3, 1)  # type: ignore[misc]  # pyright: ignore
    with pytest.raises(FrozenError, match=r"sigma was assigned"):
        model.sigma = torch.tensor(1.0)  # type: ignore[assignment]  # pyright: ignore
    with pytest.raises(FrozenError, match=r"linear was deleted"):
        del model.linear  # pyright: ignore
    with pytest.raises(AttributeError):
        model.lineear  # type: ignore[attr-defined]  # pyright: ignore  # noqa: B018


def test_identity_repr_copies_and_pickles(key: random.Key) -> None:
    model = regression()
    assert model == model
    assert model != regression()
    assert len({model, regression()}) == 2
    assert repr(model) == (
        "BayesianRegression(linear=BayesianLinear(in_features=3, out_features=1))"
    )
    x, params = torch.ones(2, 3), init(model, key)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert torch.equal(apply(other, params, key, x), apply(model, params, key, x))


def test_forward_missing(key: random.Key) -> None:
    class Parts(Module):
        w = PyroSample(dist.Normal(0.0, 1.0))

    with pytest.raises(DeclarationError, match=r"Parts was called, but has no forward"):
        apply(Parts(), {}, key)  # pyright: ignore

    class Whole(Module):
        parts: Parts

        def forward(self) -> Tensor:
            return self.parts.w

    assert apply(Whole(Parts()), {}, key).shape == ()


def test_a_tensor_where_a_declaration_belongs() -> None:
    with pytest.raises(
        DeclarationError, match=r"Bad\.scale is a Tensor \(float32\[\]\).*PyroParam"
    ):

        class Bad(Module):
            scale = torch.tensor(1.0)


def test_a_declaration_where_a_value_belongs() -> None:
    class Net(Module):
        scale: Tensor

    with pytest.raises(DeclarationError, match=r"plain field Net\.scale was given a PyroParam"):
        Net(PyroParam(torch.tensor(1.0)))  # type: ignore[arg-type]  # pyright: ignore


def test_an_annotated_declaration() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.scale has an annotation and is a PyroSample"):

        class Bad(Module):
            scale: Tensor = PyroSample(dist.Normal(0.0, 1.0))  # type: ignore[assignment]  # pyright: ignore


@pytest.mark.parametrize("default", [[], {}, set(), nn.Linear(1, 1)], ids=repr)
def test_a_mutable_default(default: object) -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.layers has the mutable default .*factory"):

        class Bad(Module):
            layers: object = default


def test_a_submodule_without_annotation() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.net is a Linear without annotation"):

        class Bad(Module):
            net = nn.Linear(1, 1)


def test_one_declaration_under_two_names() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.b is the same PyroParam object as 'a'"):

        class Bad(Module):
            a = PyroParam(torch.tensor(1.0))
            b = a


def test_a_declaration_without_content() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.a is declared by PyroParam\(\) without"):

        class Bad(Module):
            a = PyroParam()

    with pytest.raises(DeclarationError, match=r"Worse\.a is declared by PyroSample\(\) without"):

        class Worse(Module):
            a = PyroSample()


def test_a_pyro_module_cannot_be_a_field() -> None:
    class Net(Module):
        inner: nn.Module

    with pytest.raises(DeclarationError, match=r"Net\.inner was given a PyroModule.*apply\("):
        Net(PyroModule())


@pytest.mark.parametrize("name", ["a.b", "", 3])
def test_a_key_that_is_no_path(name: object) -> None:
    class Net(Module):
        parts: dict[object, Leaf]

    with pytest.raises(DeclarationError, match=r"dict in Net\.parts has a submodule under"):
        Net({name: Leaf()})


def test_deep_nesting() -> None:
    class Nest(Module):
        inner: Module
        more: tuple[object, ...] = ()

        def forward(self) -> Tensor:
            leaf: object = self
            while isinstance(leaf, Nest):
                leaf = leaf.inner
            assert isinstance(leaf, Leaf)
            return leaf.b

    depth = 250
    model: Module = Leaf()
    for _ in range(depth):
        model = Nest(model)
    assert repr(model) == "Nest(inner=" * depth + repr(Leaf()) + ", more=())" * depth
    assert isinstance(model, Nest)
    key = random.key(0)
    params = init(model, key)
    assert list(params) == ["inner." * depth + "b"]
    assert apply(model, params, key) == params["inner." * depth + "b"]
    assert repr(pickle.loads(pickle.dumps(Leaf()))) == repr(Leaf())


def test_the_text_of_containers() -> None:
    class Net(Module):
        parts: object

    for parts in ((), (1,), (1, "a"), [Leaf()], {"a": (Leaf(),), 3: []}):
        assert repr(Net(parts)) == f"Net(parts={parts!r})"
    assert repr(Net((torch.zeros(2),))) == "Net(parts=(float32[2],))"


class Coder(Module):
    """Model and guide as methods, as is usual for autoencoders."""

    enc: nn.Linear
    dec: nn.Linear
    noise = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)
    level = PyroSample(dist.Normal(0.0, 1.0))

    def model(self, x: Tensor) -> None:
        level = self.level
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z) + level, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("level", dist.Normal(0.0, self.noise))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoded(x), 1.0).to_event(1))

    def encoded(self, x: Tensor) -> Tensor:
        y: Tensor = self.enc(x)
        return y


NAMES = {"enc.weight", "enc.bias", "dec.weight", "dec.bias", "noise"}


def coder() -> Coder:
    return Coder(nn.Linear(3, 2), nn.Linear(2, 3))


def test_methods_are_pyro_models() -> None:
    """Under Pyro's own inference a method names its parameters as a run does, and learns them."""
    pyro.set_rng_seed(0)
    model, x = coder(), torch.ones(5, 3)
    before = model.dec.weight.detach().clone()
    svi = pyro.infer.SVI(
        model.model, model.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
    )
    svi.step(x)
    store = pyro.get_param_store()
    start = store["dec.weight"].detach().clone()
    svi.step(x)
    assert set(store.keys()) == NAMES
    assert not torch.equal(store["dec.weight"], start)
    assert torch.equal(model.dec.weight, before)


def test_methods_are_models_in_functions_too(key: random.Key) -> None:
    model, x = coder(), torch.ones(5, 3)
    params = init(lambda x: model.model(x), key, x)
    assert set(params) == NAMES
    for callable_ in (model.model, functools.partial(model.model), lambda x: model.model(x)):
        _, record = trace(callable_, params, key, x)
        _, direct = trace(model.model, params, key, x)
        assert torch.equal(record.log_density, direct.log_density)


def test_methods_outside_of_all_runs_are_methods() -> None:
    model = coder()
    assert torch.equal(model.encoded(torch.ones(3)), model.enc(torch.ones(3)))
    assert Coder.encoded.__name__ == "encoded"
    with pytest.raises(OutsideRunError, match=r"apply\(model\.method"):
        model.model(torch.ones(5, 3))
