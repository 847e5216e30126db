"""The first run of ours in this process: prints its time as JSON. See ``first_run.py``."""

from __future__ import annotations

import json
import time

import data
import torch
import torchopt
from models_ours import Regression

from purepyro import random
from purepyro.infer import SVI, AutoNormal


def main() -> None:
    """Run once, 2,000 steps of the regression."""
    torch.set_num_threads(1)
    arrays = [torch.from_numpy(array) for array in data.regression()]
    model = Regression()
    start = time.perf_counter()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), compiled=True, progress_bar=False)
    losses = svi.run(random.key(0), 2_000, *arrays).losses
    last = float(losses[-200:].mean())
    print(json.dumps({"call": time.perf_counter() - start, "loss": last}))


if __name__ == "__main__":
    main()
