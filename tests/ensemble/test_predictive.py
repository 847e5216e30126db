"""Mixtures of members against hand computations."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from models import regression, regression_data
from purepyro import Ensemble, Module, PyroParam, PyroSample, random
from purepyro._errors import DtypeError, MissingNameError, ShapeError, UnknownNameError
from purepyro.ensemble import EnsemblePredictive, Prediction
from purepyro.infer import SVI, AutoDelta, AutoNormal, Predictive, scale

KEY = random.key(3)


class Line(Module):
    """A line without latent sites, with a noise that grows."""

    slope = PyroParam(torch.tensor(0.0))

    def forward(self, x: Tensor, y: Tensor | None = None, seen: Tensor | None = None) -> None:
        fn = dist.Normal(self.slope * x, 0.5 + x.abs())
        with pyro.plate("data", len(x)):
            pyro.sample("y", fn if seen is None else fn.mask(seen), obs=y)


X = torch.tensor([0.0, 1.0, 2.0])
Y = torch.tensor([0.1, 2.0, 3.0])
SLOPES = torch.tensor([1.0, 2.0, 4.0, 5.0])
LINES = EnsemblePredictive(Line(), {"slope": SLOPES})


def parts(dtype: torch.dtype = torch.float32) -> dist.Normal:
    """What each member predicts, by hand."""
    x = X.to(dtype)
    return dist.Normal(SLOPES.to(dtype)[:, None] * x, (0.5 + x).expand(4, 3))


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 9])
def test_moments_by_the_law_of_total_variance(chunk_size: int | None) -> None:
    lines = EnsemblePredictive(Line(), {"slope": SLOPES}, chunk_size=chunk_size)
    found = lines.predict(KEY, X)
    torch.testing.assert_close(found.mean, 3.0 * X)
    torch.testing.assert_close(found.epistemic, 2.5 * X**2)  # of 1, 2, 4, 5: variance 2.5
    torch.testing.assert_close(found.aleatoric, (0.5 + X) ** 2)
    torch.testing.assert_close(found.variance, 2.5 * X**2 + (0.5 + X) ** 2)
    with_data = lines.predict(KEY, X, Y)
    torch.testing.assert_close(with_data, found)


def test_the_variance_is_that_of_draws_of_the_mixture() -> None:
    found = LINES.predict(KEY, X)
    which = random.randint(random.key(0), 200_000, low=0, high=4)
    noise = random.normal(random.key(1), 200_000, 3)
    draws = SLOPES[which][:, None] * X + noise * (0.5 + X)
    torch.testing.assert_close(draws.mean(0), found.mean, rtol=0.02, atol=0.02)
    torch.testing.assert_close(draws.var(0), found.variance, rtol=0.02, atol=0.02)


def test_nll_and_cdf_of_the_mixture() -> None:
    nll = LINES.nll(KEY, X, Y)
    density = parts().log_prob(Y).exp().mean(0)
    torch.testing.assert_close(nll, -density.log())
    torch.testing.assert_close(LINES.cdf(KEY, X, Y), parts().cdf(Y).mean(0))
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(3, 4)), dist.Normal(parts().loc.mT, parts().scale.mT)
    )
    torch.testing.assert_close(nll, -mixture.log_prob(Y))


def test_in_double_precision() -> None:
    lines = EnsemblePredictive(Line(), {"slope": SLOPES})
    wide = EnsemblePredictive(LineOfDouble(), {"slope": SLOPES.double()})
    assert wide.predict(KEY, X.double()).mean.dtype is torch.float64
    nll = wide.nll(KEY, X.double(), Y.double())
    torch.testing.assert_close(nll, -parts(torch.float64).log_prob(Y.double()).exp().mean(0).log())
    torch.testing.assert_close(nll.float(), lines.nll(KEY, X, Y))


class LineOfDouble(Line):
    slope = PyroParam(torch.tensor(0.0, dtype=torch.float64))


def test_one_member_is_itself() -> None:
    line = EnsemblePredictive(Line(), {"slope": SLOPES[:1]})
    found = line.predict(KEY, X)
    assert found.epistemic.tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(found.mean, X)
    torch.testing.assert_close(line.nll(KEY, X, Y), -parts().log_prob(Y)[0])


def test_a_far_point_has_a_finite_nll() -> None:
    assert LINES.nll(KEY, X, torch.full((3,), 1e4)).isfinite().all()


def test_a_masked_row_counts_nothing() -> None:
    seen = torch.tensor([True, False, True])
    nll = LINES.nll(KEY, X, Y, seen)
    torch.testing.assert_close(nll, torch.where(seen, LINES.nll(KEY, X, Y), 0.0))


def test_a_row_of_several_numbers() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        slope = pyro.param("slope", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 1.0).to_event(1), obs=y)

    both = torch.stack([X, 2 * X], dim=-1)
    found = EnsemblePredictive(model, {"slope": SLOPES})
    assert found.predict(KEY, both).mean.shape == (3, 2)
    assert found.cdf(KEY, both, both).shape == (3, 2)
    by_member = dist.Normal(SLOPES[:, None, None] * both, 1.0).log_prob(both).sum(-1)
    torch.testing.assert_close(found.nll(KEY, both, both), -by_member.exp().mean(0).log())


# ------------------------------------------------------------------------------------------ classes


class Classes(Module):
    """Logits as a parameter, for each of several rows."""

    kind: str
    logits = PyroParam(torch.zeros(2, 3))

    def forward(self, y: Tensor | None = None) -> None:
        with pyro.plate("data", 2):
            if self.kind == "one hot":
                pyro.sample("y", dist.OneHotCategorical(logits=self.logits), obs=y)
            else:
                pyro.sample("y", dist.Categorical(logits=self.logits), obs=y)


PROBS = torch.tensor([[[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], [[0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]])


@pytest.mark.parametrize("kind", ["categorical", "one hot"])
def test_class_probabilities_and_the_two_entropies(kind: str) -> None:
    logits = PROBS.clamp(min=1e-30).log()
    found = EnsemblePredictive(Classes(kind), {"logits": logits}).predict_proba(KEY)
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(found.probs, expected)
    entropy = -sum(p * math.log(p) for p in (0.2, 0.3, 0.5))
    # The members of the first row are sure, and disagree: one bit. Those of the second agree.
    torch.testing.assert_close(found.epistemic, torch.tensor([math.log(2.0), 0.0]))
    torch.testing.assert_close(found.aleatoric, torch.tensor([0.0, entropy]))
    torch.testing.assert_close(found.entropy, torch.tensor([math.log(2.0), entropy]))


def test_a_bernoulli_has_two_classes() -> None:
    def model(y: Tensor | None = None) -> None:
        p = pyro.param("p", torch.tensor([0.5, 0.5]), dist.constraints.real)
        with pyro.plate("data", 2):
            pyro.sample("y", dist.Bernoulli(logits=p), obs=y)

    probs = torch.tensor([[0.1, 0.5], [0.3, 0.5]])
    found = EnsemblePredictive(model, {"p": probs.logit()})
    expected = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    torch.testing.assert_close(found.predict_proba(KEY).probs, expected)
    torch.testing.assert_close(
        found.nll(KEY, torch.tensor([1.0, 0.0])), -torch.tensor([0.2, 0.5]).log()
    )
    torch.testing.assert_close(found.predict(KEY).mean, torch.tensor([0.2, 0.5]))


# ------------------------------------------------------------------------------------------ guides


NET = regression()
DATA = regression_data()
FIT = SVI(NET, AutoNormal(NET), torchopt.adam(0.05))
ENSEMBLE = Ensemble(FIT, progress_bar=False)
STATE = ENSEMBLE.run(random.split(random.key(1), 3), 20, *DATA).state


def test_draws_of_the_guides_are_those_of_predictive() -> None:
    """The mean site of one member's draws, under the keys that are promised."""
    found = ENSEMBLE.predictive(STATE, num_samples=5).predict(KEY, DATA[0])
    means = []
    for i in range(3):
        params = ENSEMBLE.member(STATE, i).params
        sites = ["linear.weight", "linear.bias"]
        draws = Predictive(NET, guide=FIT.guide, params=params, num_samples=5, return_sites=sites)(
            random.fold_in(KEY, i), DATA[0]
        )
        means.append(
            (DATA[0] @ draws["linear.weight"].mT).squeeze(-1) + draws["linear.bias"][:, None]
        )
    mu = torch.cat(means)
    torch.testing.assert_close(found.mean, mu.mean(0))
    torch.testing.assert_close(found.epistemic, mu.var(0, correction=0))


@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_chunks_and_numbers_change_no_draw(chunk_size: int | None) -> None:
    small = ENSEMBLE.predictive(STATE, num_samples=2, chunk_size=chunk_size)
    whole = ENSEMBLE.predictive(STATE, num_samples=2)
    torch.testing.assert_close(small.nll(KEY, *DATA), whole.nll(KEY, *DATA))


def test_members_in_quarantine_do_not_predict() -> None:
    hurt = STATE._replace(quarantined_at=torch.tensor([-1, 7, -1]))
    found = ENSEMBLE.predictive(hurt).predict(KEY, DATA[0])
    alive = ENSEMBLE.predictive(ENSEMBLE.select(STATE, [0, 2])).predict(KEY, DATA[0])
    torch.testing.assert_close(found, alive)


class Noisy(Module):
    """A model whose noise is the member's own."""

    noise: Tensor
    loc = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, rows: Tensor, y: Tensor | None = None) -> None:
        loc = self.loc
        with pyro.plate("data", len(rows)):
            pyro.sample("y", dist.Normal(loc, self.noise), obs=y)


def of_setting(setting: dict[str, Tensor]) -> SVI[[Tensor, Tensor | None]]:
    model = Noisy(setting["noise"])
    optim = torchopt.chain(torchopt.adam(1.0), scale(setting["rate"]))
    return SVI(model, AutoDelta(model), optim)


def test_members_with_settings_of_their_own() -> None:
    own = {"noise": torch.tensor([1.0, 2.0]), "rate": torch.tensor([0.1, 0.05])}
    ensemble = Ensemble(of_setting, members=own, progress_bar=False)
    state = ensemble.run(random.split(KEY, 2), 20, X, Y).state
    found = ensemble.predictive(state).predict(KEY, X, None)
    torch.testing.assert_close(found.aleatoric, torch.full((3,), 2.5))
    torch.testing.assert_close(found.mean, state.svi.params["locs.loc"].mean().expand(3))


def test_it_can_be_traced() -> None:
    def predict(slope: Tensor, x: Tensor) -> Prediction:
        return EnsemblePredictive(Line(), {"slope": slope}, chunk_size=3).predict(KEY, x)

    traced = make_fx(predict)(SLOPES, X)
    torch.testing.assert_close(traced(SLOPES + 1, X), predict(SLOPES + 1, X))


# ------------------------------------------------------------------------------------------ errors


def two_sites(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("a", dist.Normal(loc, 1.0))
    pyro.sample("b", dist.LogNormal(loc, 1.0))


def test_which_site_is_meant() -> None:
    params = {"loc": torch.zeros(2)}
    with pytest.raises(MissingNameError, match=r"\['a', 'b'\], so it is open which"):
        EnsemblePredictive(two_sites, params).predict(KEY, X)
    with pytest.raises(UnknownNameError, match="site is 'c'"):
        EnsemblePredictive(two_sites, params, site="c").predict(KEY, X)
    with pytest.raises(MissingNameError, match=r"latent sites \['b'\], but there is no guide"):
        EnsemblePredictive(two_sites, params, site="a").predict(KEY, X)


def test_a_model_that_needs_a_guide() -> None:
    with pytest.raises(MissingNameError, match="but there is no guide"):
        EnsemblePredictive(NET, STATE.svi.params).predict(KEY, *DATA)


def test_no_data_to_score() -> None:
    with pytest.raises(MissingNameError, match="'y' is not observed"):
        LINES.nll(KEY, X)
    with pytest.raises(MissingNameError, match="'y' is not observed"):
        LINES.cdf(KEY, X)


def test_no_rows() -> None:
    def model(x: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.0))
        pyro.sample("y", dist.Normal(slope * x, 1.0).to_event(1))

    with pytest.raises(ShapeError, match=r"'y' has no rows \(float32\[0\]\)"):
        EnsemblePredictive(model, {"slope": SLOPES}).predict(KEY, X[:0])
    with pytest.raises(ShapeError, match="Pass at least one row"):
        LINES.predict(KEY, X[:0])


def test_no_closed_form() -> None:
    def model(y: Tensor | None = None) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("y", dist.Cauchy(loc, 1.0) if y is None else dist.Poisson(loc.exp()), obs=y)

    params = {"loc": torch.zeros(2)}
    with pytest.raises(DtypeError, match="is Normal, which has no classes"):
        LINES.predict_proba(KEY, X)
    with pytest.raises(DtypeError, match="names of classes"):
        EnsemblePredictive(Classes("categorical"), {"logits": torch.zeros(2, 2, 3)}).predict(KEY)
    with pytest.raises(DtypeError, match="Poisson, which has no distribution function"):
        EnsemblePredictive(model, params).cdf(KEY, torch.tensor(1.0))

    def mixed() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        inner = dist.TransformedDistribution(
            dist.Normal(loc, 1.0), [dist.transforms.TanhTransform()]
        )
        pyro.sample("y", inner)

    with pytest.raises(DtypeError, match="no mean and variance in closed form"):
        EnsemblePredictive(mixed, params).predict(KEY)


def test_params_without_members() -> None:
    with pytest.raises(ShapeError, match=r"different numbers of members, or none: \{'slope': 0\}"):
        EnsemblePredictive(Line(), {"slope": torch.tensor(1.0)})
    with pytest.raises(ShapeError, match="or none"):
        EnsemblePredictive(Line(), {})
    with pytest.raises(ShapeError, match="num_samples is 0"):
        EnsemblePredictive(Line(), {"slope": SLOPES}, num_samples=0)


def test_each_member_by_itself(key: random.Key) -> None:
    found = LINES.member_nll(key, X, Y)
    torch.testing.assert_close(found, -parts().log_prob(Y))
    assert found.mean(1).argsort()[:2].tolist() == [1, 0]
    # Several draws of each make a mixture of their own.
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01))
    ensemble = Ensemble(svi)
    state = ensemble.run(random.split(key, 3), 2, x, y).state
    scores = ensemble.predictive(state, num_samples=5).member_nll(key, x, y)
    alone = ensemble.predictive(ensemble.select(state, [0]), num_samples=5)
    torch.testing.assert_close(scores[0], alone.nll(key, x, y))
    assert scores.shape == (3, len(x))


def test_a_single_fit(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01))
    result = svi.run(key, 3, x, y)
    one = EnsemblePredictive.of_fit(svi, result.state, num_samples=7)
    assert one.predict(key, x).mean.shape == x.shape[:1]
    assert one.nll(key, x, y).shape == (len(x),)
    cdf = one.cdf(key, x, y)
    assert bool(((cdf >= 0) & (cdf <= 1)).all())
