"""What is deliberately different from PyroModule: the claims of ``docs/migration.md``."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.nn import PyroParam as PyroParamOfPyro
from pyro.nn import PyroSample as PyroSampleOfPyro
from torch import Tensor, nn

from purepyro import Module, PyroParam, PyroSample, apply, init, random, trace


class Field(Module):
    """Takes anything."""

    part: object
    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        return self.z


def their_linear() -> PyroModule:
    linear = PyroModule[nn.Linear](2, 2)
    linear.weight = PyroSampleOfPyro(dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    return linear


def test_instances_are_equal_only_to_themselves() -> None:
    one = Field(1)
    assert one == one
    assert one != Field(1)
    assert len({one, one, Field(1)}) == 2


def test_a_pyromodule_cannot_be_a_field() -> None:
    with pytest.raises(TypeError, match=r"Field\.part was given a PyroModule.*apply\(pyro_module"):
        Field(their_linear())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: nn.Sequential(inner),
        lambda inner: (inner,),
        lambda inner: [1, inner],
        lambda inner: {"a": inner},
    ],
    ids=["Sequential", "tuple", "list", "dict"],
)
def test_a_pyromodule_cannot_be_inside_a_field(wrap: type[nn.Sequential]) -> None:
    # It would name its sites without the path to it.
    with pytest.raises(TypeError, match=r"PyroModule"):
        Field(wrap(their_linear()))


def test_a_pyromodule_is_run_as_the_model_itself(key: random.Key) -> None:
    class Theirs(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = their_linear()
            self.net = nn.Linear(2, 2)
            self.scale = PyroParamOfPyro(torch.tensor(2.0), constraint=dist.constraints.positive)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(self.linear(x)) * torch.as_tensor(self.scale)
            return y

    model, x = Theirs(), torch.ones(2)
    params = init(model, key, x)
    assert set(params) == {"linear.bias", "net$$$weight", "net$$$bias", "scale"}
    _, record = trace(model, params, key, x)
    assert set(record.latents) == {"linear.weight"}
    gradients = torch.func.grad(lambda p: apply(model, p, key, x).sum())(params)
    assert all(bool(g.ne(0).all()) for g in gradients.values())
    assert len(pyro.get_param_store()) == 0


def test_a_module_in_a_pyro_function_names_from_itself(key: random.Key) -> None:
    one, two = Field(1), Field(2)
    _, record = trace(lambda: one(), {}, key)
    assert set(record.latents) == {"z"}
    with pytest.raises(ValueError, match=r"Two sites of this run are named 'z'"):
        apply(lambda: one() + two(), {}, key)


def test_parameters_of_networks_come_first() -> None:
    class WithNet(Module):
        unused: nn.Linear
        net: nn.Linear
        scale = PyroParam(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(self.scale * x)
            return y

    model = WithNet(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    tr = poutine.trace(model).get_trace(torch.ones(2))
    assert tr.param_nodes == ["unused.weight", "unused.bias", "net.weight", "scale"]


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 1)])
def test_observed_values_have_exactly_the_shape_of_their_site(
    shape: tuple[int, ...], key: random.Key
) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"observed value of the site 'y'.*must be exactly \[3\]"):
        apply(model, {}, key, torch.zeros(shape))
    _, record = trace(model, {}, key, torch.zeros(3))
    assert record.log_densities["y"].shape == (3,)


def test_a_full_plate_may_be_entered_again(key: random.Key) -> None:
    def model(size: int) -> None:
        for name in ("a", "b"):
            with pyro.plate("data", 3, subsample_size=size):
                pyro.sample(name, dist.Normal(0.0, 1.0))

    _, record = trace(model, {}, key, 3)
    assert {name: len(value) for name, value in record.latents.items()} == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match=r"Two sites of this run are named 'data'"):
        apply(model, {}, key, 2)
    with pytest.raises(RuntimeError, match="Multiple sample sites named 'data'"):
        poutine.trace(model).get_trace(3)


def test_a_subsampled_plate_object_may_be_entered_again(key: random.Key) -> None:
    def model() -> tuple[Tensor, Tensor]:
        plate = pyro.plate("data", 9, subsample_size=2)
        with plate as first:
            pyro.sample("a", dist.Normal(0.0, 1.0))
        with plate as second:
            pyro.sample("b", dist.Normal(0.0, 1.0))
        return first, second

    (first, second), record = trace(model, {}, key)
    assert first.equal(second)
    assert set(record.latents) == {"data", "a", "b"}


def test_containers_are_copied() -> None:
    items = [Field(1)]
    model = Field(items)
    items.append(Field(2))
    assert isinstance(model.part, list)
    assert len(model.part) == 1


def test_inputs_are_not_changed(key: random.Key) -> None:
    def model(x: Tensor) -> Tensor:
        return x.add_(1.0)

    with pytest.raises(RuntimeError, match="The model changed argument 0"):
        apply(model, {}, key, torch.zeros(2))


def test_a_draw_depends_on_key_and_name_alone(key: random.Key) -> None:
    class More(Module):
        part: Field
        before = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self) -> Tensor:
            return self.before + self.part()

    def one() -> Tensor:
        return pyro.sample("part.z", dist.Normal(0.0, 1.0))

    _, record = trace(More(Field(1)), {}, key)
    assert record.latents["part.z"].equal(apply(one, {}, key))
    assert not record.latents["part.z"].equal(record.latents["before"])


def test_dropout_draws_from_the_key(key: random.Key) -> None:
    class Dropped(Module):
        net: nn.Dropout

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x)
            return y

    model, x = Dropped(nn.Dropout(0.5)), torch.ones(100)
    first = apply(model, {}, key, x)
    assert first.equal(apply(model, {}, key, x))
    assert not first.equal(apply(model, {}, random.key(1), x))
    assert 20 < int(first.eq(0).sum()) < 80


def test_settings_of_inference_stand_at_the_declaration() -> None:
    class Enumerated(Module):
        z = PyroSample(dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

        def forward(self) -> Tensor:
            return self.z

    node = poutine.trace(Enumerated()).get_trace().nodes["z"]
    assert node["infer"] == {"enumerate": "parallel"}
