"""Calibration errors against hand computations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import random
from purepyro._errors import DtypeError, ShapeError, SupportError
from purepyro.ensemble import calibration_error, coverage, quantile_calibration_error


def by_hand(probs: Tensor, labels: Tensor, num_bins: int) -> float:
    """Guo et al. 2017, equation 3, row by row."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for row, label in zip(probs.double(), labels, strict=True):
        confidence = float(row.max())
        inside = [b for b in range(num_bins) if b / num_bins < confidence <= (b + 1) / num_bins]
        right = float(row.argmax() == label)
        rows.setdefault(inside[0] if inside else num_bins - 1, []).append((right, confidence))
    error = 0.0
    for pairs in rows.values():
        accuracy = sum(right for right, _ in pairs) / len(pairs)
        confidence = sum(sure for _, sure in pairs) / len(pairs)
        error += len(pairs) / len(probs) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 5])
@given(seed=st.integers(0, 1000), rows=st.integers(1, 30), num_bins=st.integers(1, 20))
def test_expected_calibration_error(
    dtype: torch.dtype, classes: int, seed: int, rows: int, num_bins: int
) -> None:
    key, other = random.split(random.key(seed))
    probs = random.normal(key, rows, classes, dtype=dtype).softmax(-1)
    labels = random.randint(other, rows, low=0, high=classes)
    found = calibration_error(probs, labels, num_bins)
    assert found.dtype is dtype
    assert found.item() == pytest.approx(by_hand(probs, labels, num_bins), abs=1e-5)


def test_right_and_sure_is_no_error() -> None:
    probs = torch.eye(3)
    assert calibration_error(probs, torch.arange(3)) == 0.0
    assert calibration_error(probs, torch.tensor([1, 2, 0])) == 1.0


def test_coverage_of_uniform_numbers_is_the_level() -> None:
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(coverage(uniform, levels), levels, atol=1e-3, rtol=0.0)
    assert quantile_calibration_error(uniform) < 1e-6


def test_coverage_and_error_of_a_few_rows() -> None:
    cdf = torch.tensor([[0.2, 0.2], [0.6, 1.0]])
    levels = torch.tensor([0.25, 0.5, 0.75])
    torch.testing.assert_close(coverage(cdf, levels), torch.tensor([0.5, 0.5, 0.75]))
    expected = (0.25**2 + 0.0 + 0.0) / 3
    torch.testing.assert_close(quantile_calibration_error(cdf, 3), torch.tensor(expected))


def test_within_vmap() -> None:
    probs = random.normal(random.key(0), 4, 10, 2).softmax(-1)
    labels = torch.arange(10) % 2
    both = torch.vmap(lambda each: calibration_error(each, labels))(probs)
    alone = torch.stack([calibration_error(each, labels) for each in probs])
    torch.testing.assert_close(both, alone)
    cdfs = random.uniform(random.key(1), 4, 10)
    torch.testing.assert_close(
        torch.vmap(quantile_calibration_error)(cdfs),
        torch.stack([quantile_calibration_error(each) for each in cdfs]),
    )


def test_no_rows() -> None:
    with pytest.raises(ShapeError, match=r"probs is float32\[0, 2\], without rows"):
        calibration_error(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"cdf is float32\[0\], without rows"):
        quantile_calibration_error(torch.zeros(0))


def test_what_is_no_classification() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(ShapeError, match=r"probs is float32\[2\] .*torch\.stack\(\[1 - p, p\]"):
        calibration_error(torch.tensor([0.5, 0.5]), labels)
    with pytest.raises(ShapeError, match=r"labels int64\[2\]"):
        calibration_error(torch.eye(3), labels)
    with pytest.raises(DtypeError, match=r"labels is float32\[2\]"):
        calibration_error(torch.eye(2), labels.float())
    with pytest.raises(SupportError, match="labels go from 0 to 2, but the 2 classes are 0 to 1"):
        calibration_error(torch.eye(2), torch.tensor([0, 2]))
    with pytest.raises(SupportError, match=r"sum to 0\.5 to 0\.5.*softmax"):
        calibration_error(torch.full((2, 2), 0.25), labels)
    with pytest.raises(SupportError, match="probs has numbers that are no probabilities"):
        calibration_error(torch.tensor([[-1.0, 2.0], [0.5, 0.5]]), labels)
    with pytest.raises(ShapeError, match="num_bins is 0"):
        calibration_error(torch.eye(2), labels, num_bins=0)


def test_what_is_no_level() -> None:
    cdf = torch.tensor([0.5])
    with pytest.raises(ShapeError, match=r"levels is float32\[\]"):
        coverage(cdf, torch.tensor(0.5))
    with pytest.raises(SupportError, match="levels has numbers that are no probabilities"):
        coverage(cdf, torch.tensor([90.0]))
    with pytest.raises(SupportError, match="cdf has numbers that are no probabilities"):
        coverage(torch.tensor([torch.nan]), torch.tensor([0.5]))
