"""``describe``: what a model consists of, as a table."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from models import regression
from purepyro import Description, Module, Prior, PyroParam, PyroSample, describe, lift, replace
from purepyro._errors import DeclarationError


class Model(Module):
    size: int
    net: nn.Linear
    scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    level = PyroSample(dist.HalfNormal(1.0))

    @PyroSample
    def slope(self) -> Prior:
        return dist.Normal(0.0, self.scale).expand([self.size]).to_event(1)

    @PyroSample
    def double(self) -> Tensor:
        return 2 * self.slope

    @PyroSample
    def broken(self) -> Prior:
        raise RuntimeError("needs data")


def test_all_roles() -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    assert repr(describe(Model(3, net))).splitlines() == [
        "path        shape   role           prior",
        "scale       []      learnable",
        "level       []      random         HalfNormal(1)",
        "slope       [3]     random         Normal(0, 2)",
        "double      [3]     deterministic",
        "broken      ?       random         ?",
        "net.weight  [1, 2]  learnable",
        "net.bias    [1]     frozen",
        "total: 8 numbers (3 learnable, 4 random, 1 frozen, 3 deterministic)",
    ]


def test_a_lifted_network() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model = lift(net, {"0.*": dist.Normal(0.0, 0.5)}, frozen="1.bias")
    entries = {entry.path: entry for entry in describe(model).entries}
    assert [entry.role for entry in entries.values()] == ["random", "random", "learnable", "frozen"]
    assert entries["0.weight"].prior == "Normal(0, 0.5)"
    assert entries["0.weight"].shape == (3, 2)
    assert str(describe(model)) == repr(describe(model))


def test_changed_declarations() -> None:
    model = replace(regression(), {"sigma": PyroParam(torch.tensor(1.0))})
    roles = {entry.path: entry.role for entry in describe(model).entries}
    assert roles["sigma"] == "learnable"
    assert roles["linear.weight"] == "random"


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (dist.LogNormal(0.0, 1.0), "LogNormal(0, 1)"),
        (dist.Bernoulli(0.25), "Bernoulli(0.25)"),
        (dist.Bernoulli(logits=torch.tensor(1.0)), "Bernoulli(1)"),
        (dist.Gamma(2.0, 3.0), "Gamma(2, 3)"),
        (dist.Uniform(-1.0, 1.0), "Uniform(-1, 1)"),
        (dist.StudentT(3.0, 0.0, 1.0), "StudentT(3, 0, 1)"),
        (dist.Beta(1.0, 2.0), "Beta(1, 2)"),
        (dist.HalfCauchy(2.0), "HalfCauchy(2)"),
        (dist.Dirichlet(torch.ones(3)), "Dirichlet(1)"),
        (dist.Normal(torch.arange(3.0), 0.5).to_event(1), "Normal(float32[3], 0.5)"),
        (dist.Normal(0.0, 1.0).mask(False), "Normal(0, 1)"),
        (dist.Delta(torch.tensor(1.0)), "Delta(1, 0)"),
    ],
    ids=str,
)
def test_priors_as_text(prior: dist.TorchDistribution, text: str) -> None:
    class One(Module):
        z = PyroSample(prior)

    assert describe(One()).entries[0].prior == text


def test_models_of_which_nothing_is_known() -> None:
    class Empty(Module):
        pass

    assert "total: 0 numbers" in repr(describe(Empty()))
    function: Module = eval("lambda: None")
    with pytest.raises(DeclarationError, match=r"no Module.*trace\(model"):
        describe(function)


class Plated(Module):
    """A noise that became local to 85 rows, beside what else a run shows."""

    net: nn.Linear
    scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    level = PyroSample(dist.Normal(0.0, 1.0), local=False)
    noise = PyroSample(dist.HalfNormal(1.0), local=True)
    unread = PyroSample(dist.HalfNormal(3.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        extra = pyro.param("extra", torch.zeros(2))
        with pyro.plate("outer", 2, dim=-2), pyro.plate("rows", len(x), dim=-1):
            pyro.deterministic("mean", self.net(x).squeeze(-1) + self.level + extra.sum())
            pyro.sample("y", dist.Normal(0.0, self.scale), obs=y)
            _ = self.noise


def test_a_run_shows_plates() -> None:
    model = replace(Plated(nn.Linear(3, 1)), {"net.bias": PyroSample(dist.Normal(0.0, 1.0))})
    assert repr(describe(model, torch.ones(85, 3), y=torch.zeros(2, 85))).splitlines() == [
        "path        shape    plates       role           prior",
        "scale       []                    learnable",
        "level       []                    random         Normal(0, 1)",
        "noise       [2, 85]  outer, rows  random         HalfNormal(1)",
        "unread      []                    random         HalfNormal(3)",
        "net.weight  [1, 3]                learnable",
        "net.bias    [1]                   random         Normal(0, 1)",
        "extra       [2]                   learnable",
        "mean        [85]     outer, rows  deterministic",
        "y           [2, 85]  outer, rows  observed       Normal(0, 2)",
        "total: 179 numbers (6 learnable, 173 random, 85 deterministic, 170 observed)",
    ]


def test_a_run_of_a_plain_model() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("rows", 100, subsample_size=len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, pyro.param("s", torch.ones(()))), obs=y)

    description = describe(model, torch.zeros(7))
    assert isinstance(description, Description)
    assert [(entry.path, entry.shape, entry.plates) for entry in description.entries] == [
        ("s", (), ()),
        ("z", (7,), ("rows",)),
        ("y", (7,), ("rows",)),
    ]
