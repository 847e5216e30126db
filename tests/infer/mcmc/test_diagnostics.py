"""R-hat, ESS and standard errors equal ArviZ's; the table and the reports say what they should."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import random
from purepyro._errors import DtypeError, ShapeError, SupportError, UnknownNameError
from purepyro.infer.mcmc import summarize
from purepyro.infer.mcmc._diagnostics import (
    bfmi,
    ess_bulk,
    ess_tail,
    mcse_mean,
    mcse_sd,
    r_hat,
    report,
)


def import_arviz() -> ModuleType:
    """ArviZ, which once a day says on import that it will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = pytest.importorskip("arviz")
    assert isinstance(module, ModuleType)
    return module


def walk(seed: int, chains: int, draws: int, memory: float) -> Tensor:
    """Chains of an autoregression, float64: white noise at 0, antithetic below, slow near 1."""
    noise = random.normal(random.key(seed), draws, chains, dtype=torch.float64)
    values = [noise[0]]
    for row in noise[1:]:
        values.append(memory * values[-1] + row)
    return torch.stack(values, dim=1)


def shapes_of_draws() -> st.SearchStrategy[Tensor]:
    """Draws of all kinds: smooth, rounded (with ties), drifting, of two values, heavy-tailed."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda x: x,
        "tied": lambda x: (2 * x).round(),
        "apart": lambda x: x + torch.arange(float(len(x)), dtype=x.dtype)[:, None],
        "drifting": lambda x: x + torch.linspace(0, 3, x.shape[1], dtype=x.dtype),
        "binary": lambda x: (x > 0.5).double(),
        "heavy": lambda x: x / (x.roll(1, 1).abs() + 1e-3),
        "constant": torch.ones_like,
        "far": lambda x: 1e3 + x,
    }
    return st.builds(
        lambda kind, seed, chains, draws, memory: kinds[kind](walk(seed, chains, draws, memory)),
        st.sampled_from(sorted(kinds)),
        st.integers(0, 1_000),
        st.sampled_from([1, 2, 3, 4, 7]),
        st.sampled_from([4, 5, 6, 7, 8, 9, 10, 11, 50, 81, 101, 256]),
        st.sampled_from([-0.9, -0.4, 0.0, 0.5, 0.95]),
    )


@given(shapes_of_draws())
def test_statistics_are_those_of_arviz(draws: Tensor) -> None:
    """To 1e-6, relative; NaN where ArviZ has NaN. Beyond 1e12, an R-hat is 1 / 0 up to rounding."""
    arviz = import_arviz()
    array = draws.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 in NumPy
        expected = {
            "r_hat": arviz.rhat(array) if len(draws) > 1 else float("nan"),
            "ess_bulk": arviz.ess(array, method="bulk"),
            "ess_tail": arviz.ess(array, method="tail"),
            "mcse_mean": arviz.mcse(array, method="mean"),
            "mcse_sd": arviz.mcse(array, method="sd"),
            "bfmi": arviz.bfmi(array),
        }
    found = {
        "r_hat": r_hat(draws),
        "ess_bulk": ess_bulk(draws),
        "ess_tail": ess_tail(draws),
        "mcse_mean": mcse_mean(draws),
        "mcse_sd": mcse_sd(draws),
        "bfmi": bfmi(draws),
    }
    for name, value in found.items():
        target = torch.as_tensor(expected[name], dtype=torch.float64)
        both = [one.where((one < 1e12) | one.isnan(), torch.inf) for one in (value, target)]
        torch.testing.assert_close(
            *both, rtol=1e-6, atol=1e-12, equal_nan=True, msg=f"{name}: {both}"
        )


def test_a_summary_is_that_of_arviz() -> None:
    """4 chains of 250 draws of a matrix site, element by element; to 1e-6."""
    arviz = import_arviz()
    draws = torch.stack([walk(i, 4, 250, 0.2 * i) for i in range(4)], dim=-1).reshape(4, 250, 2, 2)
    table = arviz.summary({"w": draws.numpy()}, round_to="none", stat_focus="mean")
    site = summarize({"w": draws})["w"]
    for name in ("mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"):
        target = torch.tensor(table[name].to_numpy()).reshape(2, 2)
        torch.testing.assert_close(getattr(site, name), target, rtol=1e-6, atol=0, msg=name)
    flat = draws.reshape(1_000, 2, 2)
    for name, prob in (("lower", 0.05), ("median", 0.5), ("upper", 0.95)):
        torch.testing.assert_close(getattr(site, name), flat.quantile(prob, dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_every_dtype_is_summarized_in_float64(dtype: torch.dtype) -> None:
    draws = walk(0, 4, 100, 0.3).gt(0).to(dtype)
    site = summarize({"x": draws})["x"]
    assert {value.dtype for value in site} == {torch.float64}
    assert all(value.shape == () for value in site)
    torch.testing.assert_close(site.mean, draws.double().mean())


def test_an_element_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on the blocks in which they are looked at."""
    draws = torch.stack([walk(i, 4, 60, 0.3) for i in range(6)], dim=-1)
    together = summarize({"x": draws})["x"]
    monkeypatch.setattr("purepyro.infer.mcmc._diagnostics._BLOCK_BYTES", 4 * 60 * 8 * 2)
    alone = [summarize({"x": draws[..., i]})["x"] for i in range(6)]
    for name in together._fields:
        blocks = getattr(summarize({"x": draws})["x"], name)
        assert torch.equal(blocks, getattr(together, name))
        torch.testing.assert_close(
            blocks, torch.stack([getattr(one, name) for one in alone]), rtol=1e-12, atol=0
        )


def test_what_is_not_known_is_nan() -> None:
    draws = walk(0, 2, 20, 0.0)
    broken = torch.stack([draws, draws.clone()], dim=-1)
    broken[0, 3, 1] = torch.nan
    site = summarize({"x": broken})["x"]
    assert all(value[0].isfinite() and value[1].isnan() for value in site)
    short = summarize({"x": draws[:, :3]})["x"]
    assert short.mean.isfinite()
    assert short.sd.isfinite()
    assert short.ess_bulk.isnan()
    assert short.r_hat.isnan()
    single = summarize({"x": draws[:, :1]})["x"]
    assert single.median.isfinite()
    assert single.sd.isfinite()
    assert summarize({"x": draws[:1, :1]})["x"].sd.isnan()
    assert summarize({"x": torch.zeros(2, 20, 0)})["x"].mean.shape == (0,)


def test_the_table_has_a_row_for_each_element() -> None:
    draws = walk(0, 4, 100, 0.0)
    samples = {"tau": draws.exp(), "theta": torch.stack([draws, 100 + 10 * draws], dim=-1)}
    summary = summarize(samples, prob=0.8)
    lines = repr(summary).splitlines()
    head = "mean sd 10% 50% 90% mcse_mean mcse_sd ess_bulk ess_tail r_hat"
    assert " ".join(lines[0].split()) == head
    assert [line.split()[0] for line in lines[1:-1]] == ["tau", "theta[0]", "theta[1]"]
    assert lines[-1] == "4 x 100 draws (chains x draws of each)"
    assert len({len(line) for line in lines[:-1]}) == 1
    # The table is rounded to a hundredth of the spread.
    mean, sd = (float(lines[3].split()[column]) for column in (1, 2))
    assert abs(mean - summary["theta"].mean[1]) < 0.1
    assert abs(sd - summary["theta"].sd[1]) < 0.1
    html = summary._repr_html_()
    assert html.count("<tr>") == 4
    assert "<th>theta[1]</th>" in html


def test_names_are_escaped_in_html() -> None:
    assert "<b>" not in summarize({"<b>": walk(0, 2, 9, 0.0)})._repr_html_()


def test_wrong_arguments_are_named() -> None:
    draws = walk(0, 2, 9, 0.0)
    with pytest.raises(SupportError, match=r"prob is 90.*such as 0\.9"):
        summarize({"x": draws}, prob=90)
    with pytest.raises(ShapeError, match=r"'x': float64\[2, 9\], 'y': float64\[9, 2\]"):
        summarize({"x": draws, "y": draws.mT})
    with pytest.raises(ShapeError, match=r"'x': float64\[9\].*unsqueeze\(0\)"):
        summarize({"x": draws[0]})
    summarize({"x": draws[0].unsqueeze(0)})
    with pytest.raises(ShapeError, match=r"float64\[9\].*unsqueeze\(0\)"):
        r_hat(draws[0])
    with pytest.raises(DtypeError, match=r"complex64.*no order"):
        ess_bulk(draws.to(torch.complex64))
    with pytest.raises(UnknownNameError, match=r"'thet'.*Did you mean 'theta'"):
        summarize({"theta": draws})["thet"]
    assert repr(summarize({})).splitlines()[-1].startswith("0 x 0")


# ----------------------------------------------------------------------------------------- reports


def good() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """4 chains of 500 independent draws, with nothing to complain about."""
    noise = walk(1, 4, 500, 0.0)
    stats = {
        "diverging": torch.zeros(4, 500, dtype=torch.bool),
        "tree_depth": torch.full((4, 500), 3),
        "energy": noise,
    }
    return {"mu": walk(2, 4, 500, 0.0), "theta": walk(3, 4, 500, 0.0)[..., None]}, stats


def test_good_draws_have_no_report() -> None:
    samples, stats = good()
    assert report(samples, stats, 10) == []
    # Elements that never change, such as the upper triangle of a Cholesky factor, are no fault.
    samples["chol"] = torch.zeros(4, 500, 2, 2)
    assert report(samples, stats, 10) == []
    assert report(samples, {}, None) == []


def only(texts: list[str]) -> str:
    (text,) = texts
    return text


def test_divergences_are_counted() -> None:
    samples, stats = good()
    stats["diverging"][2, :10] = True
    text = only(report(samples, stats, 10))
    assert text.startswith("10 of 2,000 draws diverged (0.5 %), in 1 of 4 chains")
    assert "target_accept_prob" in text
    assert "non-centred" in text


def test_cut_trajectories_are_counted() -> None:
    samples, stats = good()
    stats["tree_depth"][0, :20] = 10
    assert report(samples, stats, 10) == []  # 1 %
    stats["tree_depth"][:2] = 10
    text = only(report(samples, stats, 10))
    assert text.startswith("50 % of the trajectories were cut at max_tree_depth=10 (1,023 leap")
    assert report(samples, stats, None) == []


def test_slow_energy_is_told() -> None:
    samples, stats = good()
    stats["energy"] = torch.cat([stats["energy"][:3], walk(4, 1, 500, 0.97)])
    text = only(report(samples, stats, 10))
    assert re.match(r"E-BFMI is below 0.3 in 1 of 4 chains \(the lowest: 0.[012]\d\)", text)


def test_chains_apart_are_told_by_element() -> None:
    samples, stats = good()
    theta = samples["theta"].expand(4, 500, 5).clone()
    theta[:2, :, 1:] += torch.tensor([1.0, 4.0, 2.0, 3.0])
    texts = report({**samples, "theta": theta}, stats, 10)
    assert texts[0].startswith("R-hat is above 1.01 for 4 of 6 elements (theta[2]: ")
    assert "theta[4]: " in texts[0]
    assert "and 1 more" in texts[0]
    assert "theta[1]" not in texts[0]


def test_halves_of_a_single_chain_are_compared() -> None:
    drifting = walk(0, 1, 500, 0.0) + torch.linspace(0, 3, 500)
    assert r_hat(drifting).isnan()
    assert "two halves of the chain do not agree" in report({"x": drifting}, {}, None)[0]
    assert report({"x": walk(0, 1, 2_000, 0.0)}, {}, None) == []


def test_many_short_chains_need_not_be_long() -> None:
    """64 chains of 50 draws, somewhat correlated: R-hat is above 1.01, though they agree."""
    draws = walk(5, 64, 50, 0.4)
    assert r_hat(draws) > 1.01
    assert report({"x": draws}, {}, None) == []
    draws[:8] += 1.5
    assert "R-hat is above 1.06 for 1 of 1" in report({"x": draws}, {}, None)[0]


def test_few_effective_draws_are_told() -> None:
    samples, stats = good()
    slow = walk(0, 4, 500, 0.8)
    texts = report({**samples, "slow": slow}, stats, 10)
    assert any(
        re.match(r"The effective sample size is below 400 for 1 of 3 elements \(slow: \d+\)", text)
        for text in texts
    )


def test_a_chain_that_stands_still_is_named() -> None:
    samples, stats = good()
    for values in samples.values():
        values[1] = values[1, :1]
    texts = report(samples, stats, 10)
    assert texts[0].startswith("Chain 1 never moved")
    assert "R-hat" in texts[1]
    standing = {name: values[:, :1].expand_as(values) for name, values in samples.items()}
    assert report(standing, {}, None)[0].startswith("Chains 0, 1, 2 and 1 more never moved")


def test_values_that_are_not_finite_are_told_by_site() -> None:
    samples, stats = good()
    samples["theta"][0, 7] = torch.inf
    assert report(samples, stats, 10)[0].startswith(
        "Some values of draws are not finite (theta: 1)"
    )


def test_too_few_draws_are_told() -> None:
    assert "3 draws of each chain are too few" in only(report({"x": walk(0, 2, 3, 0.0)}, {}, None))
