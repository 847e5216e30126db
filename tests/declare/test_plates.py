"""Fields in plates: local to the plate, or drawn once outside of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import Predictive as PyroPredictive
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from torch import Tensor, nn

from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    init,
    lift,
    log_density,
    random,
    replace,
    to,
    trace,
)
from purepyro._errors import DeclarationError, ShapeError
from purepyro.infer import (
    SVI,
    AutoNormal,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
)


class Noise(Module):
    """The noise is read inside the plate."""

    noise = PyroSample(dist.HalfNormal(1.0))

    def forward(self, y: Tensor) -> Tensor:
        with pyro.plate("data", len(y)):
            noise = self.noise
            pyro.sample("y", dist.Normal(0.0, noise), obs=y)
        return noise


ONE = {"noise": PyroSample(dist.HalfNormal(1.0), local=False)}
EACH = {"noise": PyroSample(dist.HalfNormal(1.0), local=True)}


def test_the_default_is_local_and_says_so_once(key: random.Key) -> None:
    class Regression(Module):
        inner: Noise

        def forward(self, y: Tensor) -> Tensor:
            return self.inner(y)

    class Fresh(Noise):
        pass

    model, y = Regression(Fresh()), torch.zeros(5)
    with pytest.warns(
        UserWarning,
        match=r"'inner\.noise' was first read inside the plate 'data'.*\[5\] in all.*local=False.*"
        r"local=True",
    ) as seen:
        noise = apply(model, {}, key, y)
    assert noise.shape == (5,)
    assert [warning.filename for warning in seen] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(apply(model, {}, key, y), noise)
        apply(replace(model, {"inner": Fresh()}), {}, key, y)


def test_a_warning_that_is_an_error_comes_again(key: random.Key) -> None:
    class Fresh(Noise):
        pass

    for _ in range(2):
        with pytest.raises(UserWarning, match="'noise' was first read"):
            apply(Fresh(), {}, key, torch.zeros(5))


def test_local_says_what_is_meant(key: random.Key) -> None:
    y = torch.zeros(5)
    for changes, shape in ((ONE, ()), (EACH, (5,))):
        _, record = trace(replace(Noise(), changes), {}, key, y)
        assert record.values["noise"].shape == record.log_densities["noise"].shape == shape
        node = poutine.trace(replace(Noise(), changes)).get_trace(y).nodes["noise"]
        assert isinstance(node["value"], Tensor)
        assert node["value"].shape == shape
        assert len(node["cond_indep_stack"]) == len(shape)


def test_no_warning_after_a_read_outside(key: random.Key) -> None:
    class Early(Module):
        z = PyroSample(dist.Normal(0.0, 1.0))
        w = PyroParam(torch.tensor(1.0))

        @PyroSample
        def twice(self) -> Tensor:
            return 2 * self.z + self.w

        def forward(self) -> tuple[Tensor, Tensor]:
            outside = self.z
            with pyro.plate("data", 4):
                return outside, self.z + self.twice

    (outside, inside), _ = trace(Early(), init(Early(), key), key)
    assert outside.shape == inside.shape == ()


class Forms(Module):
    """One field, read first in each of the ways."""

    how: str
    z = PyroSample(dist.Normal(0.0, 1.0), local=False)

    @PyroSample(local=False)
    def computed(self) -> Tensor:
        return 2 * self.z

    @PyroSample(local=True)
    def child(self) -> Prior:
        return dist.Normal(self.z, 1.0)

    def forward(self) -> Tensor:
        if self.how == "alone":
            pass
        elif self.how == "plate":
            with pyro.plate("a", 3):
                _ = self.z
        elif self.how == "nested":
            with pyro.plate("a", 3, dim=-2), pyro.plate("b", 4, dim=-1):
                _ = self.z
        elif self.how == "subsampled":
            with pyro.plate("a", 30, subsample_size=3):
                _ = self.z
        elif self.how == "sequential":
            for _ in pyro.plate("a", 30, subsample_size=3):
                _ = self.z
        elif self.how == "through a prior":
            with pyro.plate("a", 3):
                assert self.child.shape == (3,)
        elif self.how == "through a value":
            with pyro.plate("a", 3):
                assert self.computed.shape == ()
        elif self.how == "masked":
            with pyro.plate("a", 3), poutine.mask(mask=torch.tensor([True, False, True])):
                _ = self.z
        elif self.how == "scaled":
            with pyro.plate("a", 3), poutine.scale(scale=torch.tensor([1.0, 2.0, 3.0])):
                _ = self.z
        elif self.how == "conditioned":
            with pyro.plate("a", 3), poutine.condition(data={"other": torch.zeros(())}):
                _ = self.z
        elif self.how == "without a size":
            with pyro.plate("a"):
                _ = self.z
        return self.z


FORMS = (
    "plate",
    "nested",
    "subsampled",
    "sequential",
    "through a prior",
    "through a value",
    "masked",
    "scaled",
    "conditioned",
    "without a size",
)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("how", FORMS)
def test_drawn_once_wherever_it_is_read(how: str, double: bool, key: random.Key) -> None:
    def built(how: str) -> Forms:
        return to(Forms(how), torch.float64) if double else Forms(how)

    expected, alone = trace(built("alone"), {}, key)
    value, record = trace(built(how), {}, key)
    assert torch.equal(value, expected)
    assert torch.equal(record.log_densities["z"], alone.log_densities["z"])
    node = poutine.trace(built(how)).get_trace().nodes["z"]
    assert (node["cond_indep_stack"], node["scale"], node["mask"]) == ((), 1.0, None)
    if how == "sequential":  # its indices are Python numbers
        return
    keys = random.split(key, 4)
    lanes = torch.vmap(lambda key: apply(built(how), {}, key))(keys)
    assert torch.equal(lanes, torch.stack([apply(built(how), {}, key) for key in keys]))


class Around(Module):
    """A model whose field may be read before the model runs."""

    inner: Forms
    early: bool

    def forward(self) -> Tensor:
        if self.early:
            _ = self.inner.z
        return self.inner()


@given(how=st.sampled_from(FORMS), seed=st.integers(0, 100))
def test_law_a_shared_field_is_as_if_it_were_read_first(how: str, seed: int) -> None:
    key = random.key(seed)
    first, first_record = trace(Around(Forms(how), early=True), {}, key)
    late, late_record = trace(Around(Forms(how), early=False), {}, key)
    assert torch.equal(first, late)
    assert torch.equal(first_record.log_density, late_record.log_density)


def test_dimensions_are_free_inside_the_prior(key: random.Key) -> None:
    class Summed(Module):
        @PyroSample(local=False)
        def total(self) -> Prior:
            with pyro.plate("data", 3):
                parts = pyro.sample("parts", dist.Normal(0.0, 1.0))
            return dist.Normal(parts.sum(), 1.0)

        def forward(self) -> Tensor:
            with pyro.plate("data", 5):
                return pyro.sample("x", dist.Normal(self.total, 1.0))

    x, record = trace(Summed(), {}, key)
    shapes = {name: tuple(value.shape) for name, value in record.values.items()}
    assert shapes == {"parts": (3,), "total": (), "x": (5,)}
    assert x.shape == (5,)


def test_a_shared_field_that_needs_a_local_one_is_refused(key: random.Key) -> None:
    class Torn(Module):
        direct: bool
        a = PyroSample(dist.Normal(0.0, 1.0), local=True)

        @PyroSample
        def double(self) -> Tensor:
            return 2 * self.a

        @PyroSample(local=False)
        def b(self) -> Prior:
            return dist.Normal(self.a if self.direct else self.double, 1.0)

        def forward(self, *, early: bool = False) -> Tensor:
            if early:
                _ = self.a
            with pyro.plate("data", 3):
                _ = self.a if self.direct else self.double
                return self.b

    for direct, name in ((True, "a"), (False, "double")):
        with pytest.raises(
            DeclarationError, match=rf"'b' is declared with local=False.*'{name}'.*'data'.*\[3\]"
        ):
            apply(Torn(direct), {}, key)
        assert apply(Torn(direct), {}, key, early=True).shape == ()
    shared = replace(Torn(True), {"a": PyroSample(dist.Normal(0.0, 1.0), local=False)})
    assert apply(shared, {}, key).shape == ()


@pytest.mark.parametrize("value", [0, 1, "no"])
def test_local_is_a_bool_or_none(value: bool) -> None:
    with pytest.raises(DeclarationError, match=r"got local=.*Write local=False for one draw"):
        PyroSample(dist.Normal(0.0, 1.0), local=value)


def test_guides_see_a_global_site(key: random.Key) -> None:
    model, y = replace(Noise(), ONE), torch.tensor([1.0, -1.0, 2.0])
    guide = AutoNormal(model)
    svi = SVI(model, guide, torchopt.adam(0.1), TraceMeanField_ELBO())
    state = svi.init(key, y)
    assert {name: tuple(value.shape) for name, value in state.params.items()} == {
        "locs.noise": (),
        "scales.noise": (),
    }
    state, loss = svi.step(state, y)
    assert torch.isfinite(loss)
    assert trace(guide, state.params, key, y)[1].latents["noise"].shape == ()


def test_the_density_is_that_of_one_draw() -> None:
    y, noise = torch.tensor([1.0, -1.0, 2.0]), torch.tensor(0.5)
    expected = dist.HalfNormal(1.0).log_prob(noise) + dist.Normal(0.0, 0.5).log_prob(y).sum()
    value = log_density(replace(Noise(), ONE), {}, {"noise": noise}, y)
    torch.testing.assert_close(value, expected)


class Switch(Module):
    """A discrete field that is read inside a plate."""

    k = PyroSample(dist.Bernoulli(0.3), local=False, infer={"enumerate": "parallel"})

    def forward(self, y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(self.k, 1.0), obs=y)


def test_a_discrete_field_is_summed_out_once(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pass

    y = torch.tensor([1.0, 0.5, -1.0])
    svi = SVI(Switch(), guide, torchopt.adam(0.1), TraceEnum_ELBO(max_plate_nesting=1))
    loss = svi.evaluate(svi.init(key, y), y)
    terms = [
        torch.tensor(p).log() + dist.Normal(k, 1.0).log_prob(y).sum()
        for k, p in ((0.0, 0.7), (1.0, 0.3))
    ]
    torch.testing.assert_close(loss, -torch.stack(terms).logsumexp(0))


def test_pyro_repeats_the_whole_model() -> None:
    """Plates by which Pyro's algorithms repeat a model are none of its own."""
    pyro.set_rng_seed(0)
    model, y = replace(Noise(), ONE), torch.zeros(3)
    draws = PyroPredictive(model, num_samples=50, parallel=True)(y)["noise"]
    assert draws.shape == (50, 1)
    assert len(set(draws.flatten().tolist())) == 50
    guide = PyroAutoNormal(model)
    guide(y)
    loss = PyroTraceELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss)
    assert svi.step(y) > 0
    assert pyro.get_param_store()["AutoNormal.locs.noise"].shape == ()


def test_a_network_in_a_plate_keeps_its_weights(key: random.Key) -> None:
    net = lift(nn.Linear(2, 1), dist.Normal(0.0, 1.0))

    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return net(x).squeeze(-1)

    _, record = trace(model, {}, key, torch.ones(5, 2))
    assert {name: tuple(value.shape) for name, value in record.latents.items()} == {
        "weight": (1, 2),
        "bias": (1,),
    }


class Groups(Module):
    """Groups whose levels share a mean and a spread."""

    mean = PyroSample(dist.Normal(0.0, 5.0), local=False)
    spread = PyroSample(dist.HalfNormal(2.0), local=False)

    @PyroSample(local=True)
    def level(self) -> Prior:
        return dist.Normal(self.mean, self.spread)

    def forward(self, y: Tensor) -> None:
        with pyro.plate("groups", y.shape[1], dim=-1):
            level = self.level
            with pyro.plate("rows", y.shape[0], dim=-2):
                pyro.sample("y", dist.Normal(level, 1.0), obs=y)


UNPOOLED = {
    "mean": PyroSample(dist.Normal(0.0, 5.0), local=True),
    "spread": PyroSample(dist.HalfNormal(2.0), local=True),
}


def test_the_density_of_a_hierarchy() -> None:
    y, level = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 3.0]]), torch.tensor([0.5, 1.5, 2.5])
    values = {"mean": torch.tensor(1.0), "spread": torch.tensor(0.5), "level": level}
    expected = (
        dist.Normal(0.0, 5.0).log_prob(values["mean"])
        + dist.HalfNormal(2.0).log_prob(values["spread"])
        + dist.Normal(1.0, 0.5).log_prob(level).sum()
        + dist.Normal(level, 1.0).log_prob(y).sum()
    )
    torch.testing.assert_close(log_density(Groups(), {}, values, y), expected)


@pytest.mark.slow
def test_a_hierarchy_is_pooled(key: random.Key) -> None:
    """40 groups of 4 rows, levels of sd .3, noise of sd 1: by the groups' own means the levels are
    off by about 1 / sqrt(4) = .5; pooled ones by about .3 at most. 500 steps."""
    truth = 1.0 + 0.3 * random.normal(random.fold_in(key, 1), 40)
    y = truth + random.normal(random.fold_in(key, 2), 4, 40)

    def error(model: Groups) -> float:
        guide = AutoNormal(model)
        svi = SVI(model, guide, torchopt.adam(0.05), Trace_ELBO())
        level = guide.median(svi.run(key, 500, y).state.params, y)["level"]
        return (level - truth).square().mean().sqrt().item()

    of_means = (y.mean(0) - truth).square().mean().sqrt().item()
    assert error(Groups()) < 0.75 * of_means
    assert error(replace(Groups(), UNPOOLED)) > 0.9 * of_means


def test_the_page_on_plates(capsys: pytest.CaptureFixture[str]) -> None:
    """Its examples run, and print what it shows."""
    page = Path(__file__).parents[2] / "docs" / "plates.md"
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    shown = re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert shown is not None
    assert capsys.readouterr().out == shown[1]
    noisy = names["Noisy"]
    assert isinstance(noisy, type)
    quote = " ".join(re.findall(r"^> (.*)", text, flags=re.MULTILINE))
    with pytest.warns(UserWarning, match=re.escape(quote)):
        trace(noisy(), {}, random.key(0), torch.zeros(85))


# Plates without a size: Pyro lets the data have any number of rows.


def unsized(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("p"):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def unsized_latent(y: Tensor) -> None:
    with pyro.plate("p"):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def unsized_left(y: Tensor) -> None:
    with pyro.plate("p", dim=-2), pyro.plate("q", 3, dim=-1):
        pyro.sample("y", dist.Normal(torch.zeros(3), 1.0), obs=y)


def unsized_vectors(y: Tensor) -> None:
    with pyro.plate("p"):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), obs=y)


@pytest.mark.parametrize(
    ("model", "shape"),
    [(unsized, (4,)), (unsized_latent, (4,)), (unsized_left, (5, 3)), (unsized_vectors, (7, 2))],
)
def test_a_plate_without_a_size_takes_any(
    model: Callable[[Tensor], None], shape: tuple[int, ...], key: random.Key
) -> None:
    y = random.normal(key, *shape)
    _, record = trace(model, {}, key, y)
    assert record.log_densities["y"].shape == (shape[:1] if shape[-1] == 2 else shape)
    theirs = poutine.trace(poutine.condition(model, record.latents)).get_trace(y)
    torch.testing.assert_close(record.log_density, theirs.log_prob_sum())
    if record.latents:
        svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), TraceMeanField_ELBO())
        assert torch.isfinite(svi.step(svi.init(key, y), y)[1])


@pytest.mark.parametrize(
    ("model", "shape"),
    [(unsized_latent, (4, 2)), (unsized_latent, (3,)), (unsized_left, (3, 5)), (unsized_left, ())],
)
def test_other_dimensions_must_fit_as_ever(
    model: Callable[[Tensor], None], shape: tuple[int, ...], key: random.Key
) -> None:
    with pytest.raises(ShapeError, match=r"'y' is float32.*exactly"):
        trace(model, {}, key, torch.ones(shape))
