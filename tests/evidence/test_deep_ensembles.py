"""Deep ensembles and mean-field Bayesian networks on real data, beside least squares.

``python tests/evidence/networks.py`` prints the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from torch import Tensor

from evidence.networks import SPLITS, Scores, compared, diabetes, split, wine
from purepyro import random


def margin(differences: Tensor) -> float:
    """The mean over splits, less two standard errors."""
    return float(differences.mean() - 2 * differences.std() / math.sqrt(SPLITS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "gain", "ensemble_off", "bayes_off"),
    [(diabetes, 0.003, 1.0, 1.5), (wine, 0.1, 0.03, 0.035)],
)
def test_networks_on_real_data(
    load: Callable[[], tuple[Tensor, Tensor]], gain: float, ensemble_off: float, bayes_off: float
) -> None:
    """20 splits; 10 members of 80 steps, 500 steps and 100 draws of the mean-field posterior.

    By two standard errors: the mixture's NLL is lower than its members' (by ``gain`` at least, of
    the mean), and all beat the mean of the training rows in RMSE, the Bayesian network also in
    NLL. The mean RMSE is no more than ``..._off``, in units of the data, above that of least
    squares, which is hard to beat on these few rows.
    """
    found = compared(split(*load(), random.key(0)))
    ensemble, member = found["ensemble"], found["one member"]
    bayes, line, mean = found["Bayesian network"], found["least squares"], found["mean only"]
    assert (ensemble.nll < member.nll).all()
    assert margin(member.nll - ensemble.nll) > 0
    assert (member.nll - ensemble.nll).mean() > gain
    assert margin(member.rmse - ensemble.rmse) > 0
    for each, off in ((ensemble, ensemble_off), (bayes, bayes_off)):
        assert margin(mean.rmse - each.rmse) > 0
        assert float((each.rmse - line.rmse).mean()) < off
    for each in (ensemble, bayes):
        assert margin(mean.nll - each.nll) > 0
    missing: list[Scores] = [each for each in found.values() if not each.nll.isfinite().all()]
    assert not missing
