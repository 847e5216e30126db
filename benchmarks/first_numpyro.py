"""The first run of NumPyro in this process: prints its time as JSON. See ``first_run.py``."""

from __future__ import annotations

import json
import time

import data
import jax
import jax.numpy as jnp
import numpyro
from models_numpyro import regression
from numpyro.infer import SVI, Trace_ELBO, init_to_feasible
from numpyro.infer.autoguide import AutoNormal


def main() -> None:
    """Run once, 2,000 steps of the regression."""
    arrays = [jnp.asarray(array) for array in data.regression()]
    start = time.perf_counter()
    guide = AutoNormal(regression, init_loc_fn=init_to_feasible)
    svi = SVI(regression, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.PRNGKey(0), 2_000, *arrays, progress_bar=False)
    last = float(result.losses[-200:].mean())
    print(json.dumps({"call": time.perf_counter() - start, "loss": last}))


if __name__ == "__main__":
    main()
