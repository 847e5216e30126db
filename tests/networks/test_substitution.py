"""Networks of plain models compute with the params, wherever and however they are used."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.distributions import constraints, transforms
from pyro.nn import PyroModule
from pyro.nn import PyroParam as ParamOfPyro
from torch import Tensor, nn
from torch.distributions import Transform
from torch.utils.checkpoint import checkpoint

from purepyro import (
    Module,
    PyroParam,
    apply,
    init,
    lift,
    log_density,
    random,
    trace,
)
from purepyro._errors import DeclarationError, MissingNameError
from purepyro.infer import SVI, Predictive, Trace_ELBO

KEY = random.key(0)


class Concentration(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conc = nn.Parameter(torch.ones(3))


class PyroConcentration(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.conc = nn.Parameter(torch.ones(3))

    def forward(self, p: Tensor) -> None:
        pyro.sample("p", dist.Dirichlet(self.conc), obs=p)


NET = Concentration()


def dirichlet(p: Tensor) -> None:
    pyro.module("net", NET)
    pyro.sample("p", dist.Dirichlet(NET.conc), obs=p)


@pytest.mark.parametrize(
    ("model", "name"), [(dirichlet, "net$$$conc"), (PyroConcentration(), "conc")]
)
def test_sites_are_scored_with_the_params(model: Callable[[Tensor], None], name: str) -> None:
    p, conc = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([3.0, 2.0, 4.0])
    expected = dist.Dirichlet(conc).log_prob(p)
    params = {name: conc}
    torch.testing.assert_close(log_density(model, params, {}, p), expected)
    torch.testing.assert_close(trace(model, params, KEY, p)[1].log_density, expected)

    def bound(params: dict[str, Tensor]) -> Tensor:
        return -Trace_ELBO().loss(model, lambda p: None, params, KEY, p)

    torch.testing.assert_close(bound(params), expected)
    gradient = torch.func.grad(lambda c: dist.Dirichlet(c).log_prob(p))(conc)
    torch.testing.assert_close(torch.func.grad(bound)(params)[name], gradient)


@pytest.mark.parametrize(
    "build",
    [
        lambda: transforms.spline_coupling(2, count_bins=4),
        lambda: transforms.affine_autoregressive(2, hidden_dims=[4]),
        lambda: transforms.affine_coupling(2, hidden_dims=[4]),
        lambda: transforms.batchnorm(2),
    ],
)
def test_flows_that_a_model_registers_train_and_stay_as_they_are(
    build: Callable[[], Transform],
) -> None:
    with random.keyed(random.key(1)):
        flow = build()
    assert isinstance(flow, nn.Module)
    x = 1.0 + 0.3 * random.normal(random.key(2), 40, 2)

    def model(x: Tensor) -> None:
        pyro.module("flow", flow)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.TransformedDistribution(base, [flow]), obs=x)

    before = {name: dict(vars(part)) for name, part in flow.named_modules()}
    start = {name: own.clone() for name, own in flow.state_dict().items()}
    svi = SVI(model, lambda x: None, torchopt.adam(0.02))
    losses = svi.run(KEY, 60, x).losses
    assert losses[-1] < losses[0]
    for name, part in flow.named_modules():
        assert before[name].keys() == vars(part).keys()
        assert all(before[name][k] is v for k, v in vars(part).items())
    assert all(torch.equal(start[name], own) for name, own in flow.state_dict().items())


def test_a_cache_of_a_transform_is_put_back_after_an_exception_too() -> None:
    exp = transforms.ExpTransform(cache_size=1)
    exp(torch.ones(2))
    cached = vars(exp)["_cached_x_y"]

    def model(fails: bool) -> None:
        pyro.sample("x", dist.TransformedDistribution(dist.Normal(0.0, 1.0), [exp]))
        if fails:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(model, {}, KEY, True)
    assert vars(exp)["_cached_x_y"] is cached
    trace(model, {}, KEY, False)
    assert vars(exp)["_cached_x_y"] is cached


class VAE(nn.Module):
    """Registered by its model alone, and used by its guide, as in many of Pyro's examples."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)
        self.decode = nn.Linear(2, 4)

    def model(self, x: Tensor) -> None:
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            h = self.encode(x)
            pyro.sample("z", dist.Normal(h[:, :2], h[:, 2:].exp()).to_event(1))


class EncoderFirst(VAE):
    """The other way round: the guide registers what the model uses."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("vae", self)
        super().guide(x)


@pytest.mark.parametrize("kind", [VAE, EncoderFirst])
def test_what_one_registers_the_other_uses(kind: type[VAE]) -> None:
    vae, x = kind(), random.normal(random.key(3), 6, 4)
    svi = SVI(vae.model, vae.guide, torchopt.adam(0.02))
    state = svi.init(KEY, x)
    assert sorted(state.params) == [
        *("vae$$$decode.bias", "vae$$$decode.weight", "vae$$$encode.bias", "vae$$$encode.weight")
    ]

    def loss(params: dict[str, Tensor], key: random.Key) -> Tensor:
        return Trace_ELBO().loss(vae.model, vae.guide, params, key, x)

    # As the same loss of networks whose own parameters these are.
    gradients = torch.func.grad(loss)(state.params, KEY)
    vae.load_state_dict({n.removeprefix("vae$$$"): p for n, p in state.params.items()})
    assert all(bool((gradient != 0).any()) for gradient in gradients.values())
    for name, own in vae.named_parameters():
        step, full = torch.zeros_like(own), state.params[f"vae$$${name}"]
        step.view(-1)[0] = 1e-2
        up, down = (loss({**state.params, f"vae$$${name}": full + s}, KEY) for s in (step, -step))
        torch.testing.assert_close(
            (up - down) / 2e-2, gradients[f"vae$$${name}"].view(-1)[0], rtol=2e-2, atol=2e-2
        )
    predictive = Predictive(
        vae.model,
        guide=vae.guide,
        params=state.params,
        num_samples=3,
        return_sites=["z"],
    )
    assert predictive(KEY, x)["z"].shape == (3, 6, 2)


class Slope(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope = ParamOfPyro(torch.tensor(2.0), constraint=constraints.positive)

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = getattr(self, "slope")  # noqa: B009  # to checkers it is a PyroParam
        return slope * x


@pytest.mark.parametrize("first", ["register", "read"])
def test_a_parameter_under_two_names_is_one_entry(first: str) -> None:
    line = Slope()

    def model(x: Tensor, y: Tensor) -> None:
        mean = line(x) if first == "read" else None
        pyro.module("line", line)
        mean = line(x) if mean is None else mean
        pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    x = torch.ones(3)
    assert len(init(model, KEY, x, 3 * x)) == 1
    result = SVI(model, lambda x, y: None, torchopt.adam(0.1)).run(KEY, 200, x, 3 * x)
    (value,) = result.state.params.values()
    assert abs(value.exp().item() - 3.0) < 0.01


RAW = nn.Parameter(torch.ones(3))


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.raw = [nn.Parameter(torch.ones(3))]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x * self.raw[0])
        return out


class Closure(Module):
    scale = PyroParam(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * RAW


def test_a_parameter_that_nobody_registered_is_refused() -> None:
    x, net = torch.ones(2, 3), lift(Raw())
    with pytest.raises(MissingNameError, match=r"'raw\[0\]'.*ParameterList"):
        apply(net, init(net, KEY), KEY, x)
    with pytest.raises(MissingNameError, match=r"float32\[3\].*requires_grad_\(False\)"):
        apply(lambda x: x * RAW, {}, KEY, x)
    with pytest.raises(MissingNameError, match="lost"):
        apply(Closure(), {"scale": torch.tensor(1.0)}, KEY, x)
    with pytest.raises(MissingNameError, match="lost"):
        torch.func.grad(lambda p: apply(Closure(), p, KEY, x).sum())({"scale": torch.tensor(1.0)})

    def model(x: Tensor) -> None:
        pyro.sample("y", dist.Normal(x.sum() * RAW.sum(), 1.0), obs=torch.tensor(0.0))

    with pytest.raises(MissingNameError, match="lost"):
        SVI(model, lambda x: None, torchopt.adam(0.1)).init(KEY, x)


def test_the_ways_out_work() -> None:
    x = torch.ones(2, 3)
    fixed = nn.Parameter(torch.full((3,), 2.0), requires_grad=False)
    assert torch.equal(apply(lambda x: x * fixed, {}, KEY, x), 2 * x)
    assert torch.equal(apply(lambda x: x * RAW.detach(), {}, KEY, x), x)
    assert torch.equal(apply(lambda x, w: x * w, {}, KEY, x, RAW), x)

    class Listed(Raw):
        def __init__(self) -> None:
            super().__init__()
            self.raw = nn.ParameterList([torch.ones(3)])  # type: ignore[assignment]

    net = lift(Listed())
    params = {**init(net, KEY), "raw.0": torch.zeros(3)}
    assert torch.equal(apply(net, params, KEY, x), params["layer.bias"].expand(2, 1))


def test_torchscript_is_refused() -> None:
    make: Callable[..., object] = torch.jit.trace
    with pytest.warns(DeprecationWarning, match="deprecated"):
        scripted = make(nn.Linear(3, 1), torch.ones(1, 3))
    assert isinstance(scripted, nn.Module)
    with pytest.raises(DeclarationError, match=r"TorchScript.*made from"):
        apply(lift(scripted), init(lift(nn.Linear(3, 1)), KEY), KEY, torch.ones(1, 3))


def test_a_module_may_register_a_network_in_its_forward() -> None:
    net = nn.Linear(3, 1)

    class Registers(Module):
        scale = PyroParam(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            pyro.module("net", net)
            out: Tensor = self.scale * net(x)
            return out

    model, x = Registers(), torch.ones(2, 3)
    params = init(model, KEY, x)
    assert sorted(params) == ["net$$$bias", "net$$$weight", "scale"]
    params |= {"net$$$weight": torch.ones(1, 3), "net$$$bias": torch.zeros(1)}
    for _ in range(2):
        assert torch.equal(apply(model, params, KEY, x), torch.full((2, 1), 3.0))


def test_a_result_that_is_a_parameter_is_its_value() -> None:
    net, weight = nn.Linear(3, 1), torch.zeros(1, 3)

    def model() -> tuple[Tensor, dict[str, Tensor]]:
        pyro.module("net", net)
        pyro.deterministic("w", net.weight)
        return net.weight, {"w": net.weight}

    params = {"net$$$weight": weight, "net$$$bias": torch.zeros(1)}
    (first, named), record = trace(model, params, KEY)
    assert first is weight
    assert named["w"] is weight
    assert torch.equal(record.deterministic["w"], weight)


def test_parameters_that_nothing_depends_on_are_told() -> None:
    class Idle(Module):
        net: nn.Module
        used = PyroParam(torch.tensor(0.0))
        idle = PyroParam(torch.tensor(0.0))

        def forward(self, y: Tensor) -> None:
            pyro.sample("y", dist.Normal(self.used + self.net(y).detach().sum(), 1.0), obs=y.sum())

    svi = SVI(Idle(nn.Linear(2, 1)), lambda y: None, torchopt.adam(0.1))
    with pytest.warns(UserWarning, match=r"\['net\.weight', 'net\.bias', 'idle'\].*frozen"):
        svi.init(KEY, torch.ones(2))
    quiet = SVI(svi.model, svi.guide, torchopt.adam(0.1), frozen=["net.*", "idle"])
    quiet.init(KEY, torch.ones(2))


def test_a_step_with_nothing_to_learn_is_a_step() -> None:
    def model() -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    svi = SVI(model, lambda: None, torchopt.adam(0.1))
    state, loss = svi.step(svi.init(KEY))
    torch.testing.assert_close(loss, -dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0)))
    assert int(state.step) == 1


def test_a_read_without_a_start_has_the_constraint_that_the_other_said() -> None:
    def model(y: Tensor) -> None:
        scale = pyro.param("scale")
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, scale), obs=y)

    def guide(y: Tensor) -> None:
        pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    y, loss = torch.tensor(1.0), Trace_ELBO()
    params = {"scale": torch.tensor(3.0).log(), "loc": torch.tensor(0.5)}
    z = random.sample(random.name_key(KEY, "z"), dist.Normal(0.5, 1.0))
    expected = dist.Normal(0.5, 1.0).log_prob(z) - dist.Normal(0.0, 1.0).log_prob(z)
    expected = expected - dist.Normal(z, 3.0).log_prob(y)
    torch.testing.assert_close(loss.loss(model, guide, params, KEY, y), expected)
    # The other way round, where the guide, which runs first, reads what the model starts.
    torch.testing.assert_close(
        loss.loss(_with_z(guide, model), _reading(guide), params, KEY, y),
        loss.loss(_with_z(guide, model), guide, params, KEY, y),
    )
    state = SVI(model, guide, torchopt.adam(0.1)).init(KEY, y)
    torch.testing.assert_close(state.params["scale"].exp(), torch.tensor(2.0))
    with pytest.raises(MissingNameError, match=r"pyro\.param\('scale'\).*constraint=\.\.\."):
        apply(model, {"scale": torch.tensor(0.0)}, KEY, y)


def _with_z(
    guide: Callable[[Tensor], None], model: Callable[[Tensor], None]
) -> Callable[[Tensor], None]:
    def both(y: Tensor) -> None:
        pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        model(y)

    return both


def _reading(guide: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    def reads(y: Tensor) -> None:
        assert bool(pyro.param("scale") > 0)
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    return reads


def test_a_sequence_of_no_certain_length() -> None:
    hmm = dist.DiscreteHMM(
        torch.zeros(2), torch.zeros(2, 2), dist.Normal(torch.tensor([0.0, 1.0]), 1.0)
    )

    def model(y: Tensor) -> None:
        pyro.sample("y", hmm, obs=y)

    y = torch.ones(5)
    torch.testing.assert_close(log_density(model, {}, {}, y), hmm.log_prob(y))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.layer, x, use_reentrant=False)
        return out


def test_activation_checkpointing() -> None:
    """What the backward pass runs again must compute with the same parameters."""
    net, x = Checkpointed(), torch.ones(2, 3)

    def model(x: Tensor) -> Tensor:
        pyro.module("net", net)
        out: Tensor = net(x)
        return out

    with pytest.raises(DeclarationError, match=r"checkpoint.*'net\$\$\$layer\.weight'.*lift"):
        apply(model, init(lambda: pyro.module("net", net), KEY), KEY, x)
    params = {"layer.weight": torch.full((1, 3), 2.0), "layer.bias": torch.zeros(1)}
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    loss = apply(lift(net), leaves, KEY, x).square().sum()
    weight, _ = torch.autograd.grad(loss, list(leaves.values()))
    assert torch.equal(weight, torch.full((1, 3), 24.0))  # two rows of 2 * 6
