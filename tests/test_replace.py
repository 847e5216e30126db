"""Changed copies: ``replace`` and ``to``."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from models import BayesianLinear, regression
from purepyro import Module, PyroParam, PyroSample, apply, init, random, replace, to, trace
from purepyro._errors import DeclarationError, UnknownNameError


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
