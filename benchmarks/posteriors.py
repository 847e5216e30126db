"""NUTS on twenty posteriors of posteriordb, beside their reference moments.

    python benchmarks/posteriors.py [name ...]

Means have to be within 4 standard errors of the reference, standard deviations within 10 %, R-hat
below 1.01, and at most 1 % of the draws may diverge; otherwise the script fails. Times are those of
a whole call, with the compiler. Not a comparison of speed: that is ``mcmc.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from timing import report

from purepyro import random
from purepyro.infer.mcmc import MCMC, NUTS

# The models and the data are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from evidence.mcmc.posteriors import BUILDERS, Comparison, compare, posterior


def run(name: str, options: argparse.Namespace) -> tuple[dict[str, str | float], Comparison]:
    """A row of the table."""
    known = posterior(name)
    kernel = NUTS(known.model, target_accept_prob=options.accept, dense_mass=options.dense)
    mcmc = MCMC(
        kernel,
        num_warmup=options.warmup,
        num_samples=options.draws,
        num_chains=options.chains,
        compiled=not options.eager,
    )
    start = time.perf_counter()
    result = mcmc.run(random.key(options.seed), *known.args)
    seconds = time.perf_counter() - start
    found = compare(known, result.samples, result.stats)
    row: dict[str, str | float] = {
        "posterior": name,
        "elements": len(known.references),
        "worst mean (standard errors)": f"{found.mean:.2f}",
        "worst sd": f"{found.sd:.1%}",
        "R-hat": f"{found.r_hat:.4f}",
        "least ESS": f"{found.ess:,.0f}",
        "divergent": f"{found.divergent:.2%}",
        "leapfrogs a draw": f"{result.stats['n_steps'].double().mean():.1f}",
        "seconds": f"{seconds:.0f}",
        "": "; ".join(found.faults) or "ok",
    }
    return row, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="of a posterior; by default all")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=1_000)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--accept", type=float, default=0.8, help="target_accept_prob")
    parser.add_argument("--dense", action="store_true", help="dense_mass=True")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--float32", action="store_true", help="in single precision")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32 if options.float32 else torch.float64)
    rows, raw = [], {}
    for name in options.names or BUILDERS:
        row, found = run(name, options)
        print(*row.values(), sep="  ", flush=True)
        rows.append(row)
        raw[name] = {field: getattr(found, field) for field in Comparison.__annotations__}
    setting = (
        f"{options.chains} chains, {options.warmup:,} + {options.draws:,} draws each, "
        f"{torch.get_default_dtype()}, seed {options.seed}"
    )
    report("posteriors", {setting: rows}, raw)
    failed = sum(row[""] != "ok" for row in rows)
    if failed:
        sys.exit(f"{failed} of {len(rows)} posteriors are not as they should be.")


if __name__ == "__main__":
    main()
