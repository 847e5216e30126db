"""Pyro's examples, each with small data made here and the loss that its ``main`` uses.

Models and guides are the examples' own, unchanged; sizes are small, and where an example offers
several models or guides all are run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoNormal,
    AutoNormalizingFlow,
    init_to_feasible,
    init_to_sample,
    init_to_value,
)
from pyro.infer.reparam import NeuTraReparam
from torch import Tensor, nn

from .checkout import Checkout
from .compare import Case

Cases = Iterable[Case]


@attrs.frozen
class Program:
    """An example, and how to make cases of it."""

    path: str
    cases: Callable[[ModuleType], Cases]
    dtype: torch.dtype

    def load(self, checkout: Checkout) -> Iterator[Case]:
        """The cases of the example as it stands in the checkout, each with an empty store."""
        module = checkout.example(self.path)
        torch.set_default_dtype(self.dtype)  # some examples set it
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        for case in self.cases(module):
            yield case
            pyro.clear_param_store()


PROGRAMS: list[Program] = []

# Examples without a model that a loss or a density could be taken of, or that cannot be imported.
LEFT_OUT = {
    "einsum.py": "sums of products only, no model",
    "minipyro.py": "runs on a Pyro of its own",
    "rsa/*.py": "models of language, solved by search over executions; no loss",
    "scanvi/scanvi.py": "needs scanpy and its data",
    "contrib/funsor/hmm.py": "needs funsor, Pyro's other backend",
    "contrib/timeseries/gp_models.py": "a density of its own, no pyro.sample",
    "contrib/oed/*.py": "searches for designs by losses of its own",
}


def _program(
    path: str, dtype: torch.dtype = torch.float64
) -> Callable[[Callable[[ModuleType], Cases]], Callable[[ModuleType], Cases]]:
    def register(cases: Callable[[ModuleType], Cases]) -> Callable[[ModuleType], Cases]:
        PROGRAMS.append(Program(path, cases, dtype))
        return cases

    return register


# ------------------------------------------------------------------------------------- networks


@_program("vae/vae.py")
def _vae(example: ModuleType) -> Cases:
    vae = example.VAE(z_dim=3, hidden_dim=5)
    images = torch.rand(4, 1, 28, 28)
    yield Case(name="vae", model=vae.model, guide=vae.guide, args=(images,))
    for loss in ("TraceMeanField_ELBO", "TraceGraph_ELBO"):
        yield Case(name=f"vae, {loss}", model=vae.model, guide=vae.guide, loss=loss, args=(images,))
    for alpha in (0.0, 0.5, 2.0):
        yield Case(
            name=f"vae, RenyiELBO, alpha {alpha}",
            model=vae.model,
            guide=vae.guide,
            loss="RenyiELBO",
            options={"alpha": alpha},
            args=(images,),
        )


@_program("vae/vae_comparison.py")
def _vae_comparison(example: ModuleType) -> Cases:
    vae = example.PyroVAEImpl(SimpleNamespace(jit=False, batch_size=4), None, None)
    images = torch.rand(4, 1, 28, 28)
    yield Case(name="vae_comparison", model=vae.model, guide=vae.guide, args=(images,))


@_program("vae/ss_vae_M2.py")
def _ss_vae(example: ModuleType) -> Cases:
    images = torch.rand(4, 784)
    digits = nn.functional.one_hot(torch.tensor([0, 3, 3, 9]), 10).to(images)
    for way in (None, "parallel"):
        vae = example.SSVAE(z_dim=3, hidden_layers=[5], config_enum=way, aux_loss_multiplier=46.0)
        guide, loss, options = vae.guide, "Trace_ELBO", {}
        if way is not None:
            guide = config_enumerate(vae.guide, way, expand=True)
            loss, options = "TraceEnum_ELBO", {"max_plate_nesting": 1}
        name = f"ss_vae_M2, {'sampled' if way is None else 'enumerated'} labels"
        case = Case(
            name=name, model=vae.model, guide=guide, loss=loss, options=options, args=(images,)
        )
        yield case
        yield attrs.evolve(case, name=f"{name}, given", args=(images, digits))
        yield Case(
            name=f"{name}, classifier",
            model=vae.model_classify,
            guide=vae.guide_classify,
            args=(images, digits),
        )


@_program("cvae/cvae.py")
def _cvae(example: ModuleType) -> Cases:
    baseline = nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.Sigmoid())
    net = example.CVAE(3, 6, 5, baseline)
    outputs = torch.rand(4, 28, 28)
    inputs = outputs.clone()
    inputs[:, :14, :14] = -1.0
    yield Case(name="cvae", model=net.model, guide=net.guide, args=(inputs, outputs))


@_program("dmm.py", torch.float32)
def _dmm(example: ModuleType) -> Cases:
    lengths = torch.tensor([4, 3])
    sequences = torch.bernoulli(torch.full((2, 4, 6), 0.4))
    turned = example.poly.reverse_sequences(sequences, lengths)
    packed = nn.utils.rnn.pack_padded_sequence(turned, lengths, batch_first=True)
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    for flows in (0, 2):
        dmm = example.DMM(
            input_dim=6,
            z_dim=3,
            emission_dim=4,
            transition_dim=4,
            rnn_dim=5,
            num_iafs=flows,
            iaf_dim=4,
        )
        for annealing in (1.0, 0.3):
            yield Case(
                name=f"dmm, {flows} flows, annealing {annealing}",
                model=dmm.model,
                guide=dmm.guide,
                args=(sequences, packed, mask, lengths, annealing),
            )


@_program("air/air.py", torch.float32)
def _air(example: ModuleType) -> Cases:
    images = torch.rand(4, 12, 12)
    sizes = {"num_steps": 2, "x_size": 12, "window_size": 5, "z_what_size": 3}
    for baselines in (False, True):
        for batch in (None, 2):
            air = example.AIR(
                rnn_hidden_size=6,
                encoder_net=[6],
                decoder_net=[6],
                predict_net=[6],
                bl_predict_net=[6],
                use_baselines=baselines,
                **sizes,
            )
            name = f"air{', baselines' if baselines else ''}{', batches' if batch else ''}"
            for loss in ("TraceGraph_ELBO",) if baselines else ("TraceGraph_ELBO", "Trace_ELBO"):
                yield Case(
                    name=f"{name}, {loss}",
                    model=air.model,
                    guide=air.guide,
                    loss=loss,
                    args=(images, batch),
                )


@_program("contrib/cevae/synthetic.py", torch.float32)
def _cevae(example: ModuleType) -> Cases:
    x, t, y, _ = example.generate_data(SimpleNamespace(num_data=6, feature_dim=3))
    for latent in (2, 3):
        net = example.CEVAE(3, latent_dim=latent, hidden_dim=4, num_layers=2, num_samples=2)
        yield Case(
            name=f"cevae, {latent} latent and 3 features",
            model=net.model,
            guide=net.guide,
            args=(x, t, y),
        )


# -------------------------------------------------------------------------- discrete, enumerated


@_program("lda.py")
def _lda(example: ModuleType) -> Cases:
    args = SimpleNamespace(
        num_topics=3, num_words=7, num_docs=5, num_words_per_doc=4, layer_sizes="6-5"
    )
    words = torch.randint(0, 7, (4, 5))
    guide = partial(example.parametrized_guide, example.make_predictor(args))
    for batch in (None, 2):
        yield Case(
            name=f"lda{', batches' if batch else ''}",
            model=example.model,
            guide=guide,
            loss="TraceEnum_ELBO",
            options={"max_plate_nesting": 2},
            args=(words,),
            kwargs={"args": args, "batch_size": batch},
        )


@_program("hmm.py")
def _hmm(example: ModuleType) -> Cases:
    sequences = torch.bernoulli(torch.full((4, 4, 5), 0.4))
    lengths = torch.tensor([4, 2, 3, 1])
    for name, model in example.models.items():
        for raftery in (False, True) if name == "6" else (False,):
            for batch in (None, 2):
                args = SimpleNamespace(
                    hidden_dim=4,
                    nn_dim=3,
                    nn_channels=2,
                    jit=False,
                    raftery_parameterization=raftery,
                )
                exposed = poutine.block(
                    model, expose_fn=lambda msg: str(msg["name"]).startswith("probs_")
                )
                more = f"{', Raftery' if raftery else ''}{', batches' if batch else ''}"
                yield Case(
                    name=f"hmm {name}{more}",
                    model=model,
                    guide=AutoDelta(exposed),
                    loss="TraceEnum_ELBO",
                    options={"max_plate_nesting": 1 if name == "0" else 2},
                    args=(sequences, lengths),
                    kwargs={"args": args, "batch_size": batch},
                )


@_program("mixed_hmm/model.py")
def _mixed_hmm(example: ModuleType) -> Cases:
    groups, rows, steps = 2, 3, 3
    seen = {
        "step": torch.rand(rows, groups, steps) + 0.1,
        "angle": torch.rand(rows, groups, steps) - 0.5,
        "omega": 0.8 * torch.rand(rows, groups, steps) + 0.1,
    }
    missing = 1e-6
    seen["step"][0, 0, 1] = seen["omega"][1, 1, 0] = missing
    rows_there = torch.tensor([[True, True], [True, True], [True, False]])
    for of_group in (None, "discrete", "continuous"):
        for of_row in (None, "discrete", "continuous"):
            config = {
                "MISSING": missing,
                "sizes": {
                    "state": 2,
                    "random": 3,
                    "group": groups,
                    "individual": rows,
                    "timesteps": steps,
                },
                "group": {"random": of_group},
                "individual": {"random": of_row, "mask": rows_there},
                "timestep": {"mask": rows_there.unsqueeze(-1).expand(rows, groups, steps)},
                "observations": seen,
            }
            yield Case(
                name=f"mixed_hmm, group {of_group}, individual {of_row}",
                model=partial(example.model_generic, config),
                guide=partial(example.guide_generic, config),
                loss="TraceEnum_ELBO",
                options={"max_plate_nesting": 2},
            )


@_program("capture_recapture/cjs.py", torch.float32)
def _capture_recapture(example: ModuleType) -> Cases:
    history = torch.bernoulli(torch.full((6, 4), 0.6))
    history[:, 0] = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    sex = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    for name, model in example.models.items():
        exposed = poutine.block(model, expose_fn=lambda msg: str(msg["name"])[:3] in ("phi", "rho"))
        yield Case(
            name=f"capture_recapture {name}",
            model=model,
            guide=AutoDiagonalNormal(exposed),
            loss="TraceEnum_ELBO",
            options={"max_plate_nesting": 1},
            args=(history, sex),
        )


@_program("toy_mixture_model_discrete_enumeration.py")
def _toy_mixture(example: ModuleType) -> Cases:
    prior, _, data = example.generate_data(6)
    yield Case(
        name="toy_mixture",
        model=example.model,
        guide=example.guide,
        loss="TraceEnum_ELBO",
        options={"max_plate_nesting": 1},
        args=(prior, data, 6),
    )


@_program("contrib/autoname/scoping_mixture.py")
def _scoping_mixture(example: ModuleType) -> Cases:
    data = torch.tensor([0.0, 1.0, 2.0, 20.0, 30.0, 40.0])
    yield Case(
        name="autoname, scoping_mixture",
        model=example.model,
        guide=config_enumerate(example.guide),
        loss="TraceEnum_ELBO",
        options={"max_plate_nesting": 1},
        args=(2, data),
    )


@_program("contrib/autoname/mixture.py")
def _mixture(example: ModuleType) -> Cases:
    data = torch.tensor([0.0, 1.0, 2.0, 20.0, 30.0, 40.0])
    for loss in ("Trace_ELBO", "TraceGraph_ELBO"):
        yield Case(
            name=f"autoname, mixture, {loss}",
            model=example.model,
            guide=example.guide,
            loss=loss,
            args=(data,),
            kwargs={"k": 2},
        )


@_program("contrib/autoname/tree_data.py")
def _tree_data(example: ModuleType) -> Cases:
    one = torch.tensor(1.0)
    data = {"foo": one, "bar": [0 * one, 2 * one], "baz": {"verb": 2 * one, "noun": {"x": one}}}
    yield Case(name="autoname, tree_data", model=example.model, guide=example.guide, args=(data,))


@_program("sir_hmc.py", torch.float32)
def _sir(example: ModuleType) -> Cases:
    args = SimpleNamespace(population=6, recovery_time=3.0)
    vars(example)["args"] = args  # one function reads it there
    data = torch.tensor([1.0, 1.0, 0.0])
    yield Case(name="sir_hmc, discrete_model", model=example.discrete_model, args=(args, 0 * data))
    start = example.heuristic_init(args, data.clone())
    for name in ("reparameterized_discrete_model", "continuous_model", "vectorized_model"):
        model = getattr(example, name)
        names = ["R0", "rho"] if "discrete" in name else ["R0", "rho", "S_aux", "I_aux"]
        shown = poutine.block(model, expose=names)
        sums_out = name != "vectorized_model"
        yield Case(
            name=f"sir_hmc, {name}",
            model=model,
            guide=AutoDelta(shown, init_loc_fn=init_to_value(values=start)),
            loss="TraceEnum_ELBO" if sums_out else "Trace_ELBO",
            options={"max_plate_nesting": 0} if sums_out else {},
            args=(args, data),
        )


# ----------------------------------------------------------------------------- continuous latents


@_program("baseball.py")
def _baseball(example: ModuleType) -> Cases:
    at_bats = torch.full((5,), 45.0)
    hits = torch.tensor([18.0, 17.0, 16.0, 9.0, 7.0])
    for name in ("fully_pooled", "not_pooled", "partially_pooled", "partially_pooled_with_logit"):
        model = getattr(example, name)
        yield Case(name=f"baseball, {name}", model=model, args=(at_bats, hits))
        yield Case(
            name=f"baseball, {name}, AutoNormal",
            model=model,
            guide=AutoNormal(model),
            args=(at_bats, hits),
        )


@_program("eight_schools/svi.py", torch.float32)
def _eight_schools(example: ModuleType) -> Cases:
    for loss in ("Trace_ELBO", "TraceMeanField_ELBO"):
        yield Case(
            name=f"eight_schools, {loss}",
            model=example.model,
            guide=example.guide,
            loss=loss,
            args=(example.data,),
        )


@_program("eight_schools/mcmc.py", torch.float32)
def _eight_schools_mcmc(example: ModuleType) -> Cases:
    data = example.data
    yield Case(
        name="eight_schools, mcmc",
        model=example.conditioned_model,
        args=(example.model, data.sigma, data.y),
    )


@_program("sparse_gamma_def.py", torch.float32)
def _sparse_gamma(example: ModuleType) -> Cases:
    made = example.SparseGammaDEF()
    made.top_width, made.mid_width, made.bottom_width, made.image_size = 4, 3, 2, 6
    x = torch.poisson(torch.full((3, 6), 2.0))
    guides = {
        "own": made.guide,
        "easy": example.MyEasyGuide(made.model),
        "auto": AutoDiagonalNormal(made.model, init_loc_fn=init_to_feasible),
    }
    for name, guide in guides.items():
        for loss in ("TraceMeanField_ELBO", "Trace_ELBO"):
            yield Case(
                name=f"sparse_gamma_def, {name} guide, {loss}",
                model=made.model,
                guide=guide,
                loss=loss,
                args=(x,),
            )


@_program("sparse_regression.py", torch.float32)
def _sparse_regression(example: ModuleType) -> Cases:
    x, y, _, _ = example.get_data(N=8, P=5, S=3, Q=2)
    hypers = {"expected_sparsity": 1.0, "c": 1.0, "beta1": 1.0, "beta2": 1.0}
    hypers.update(alpha1=3.0, alpha2=3.0, alpha3=1.0)
    guides = {
        "AutoDelta": AutoDelta(example.model, init_loc_fn=example.init_loc_fn),
        "AutoNormal": AutoNormal(example.model),
    }
    for name, guide in guides.items():
        yield Case(
            name=f"sparse_regression, {name}",
            model=example.model,
            guide=guide,
            args=(x, y, hypers),
        )


@_program("lkj.py")
def _lkj(example: ModuleType) -> Cases:
    y = torch.randn(8, 3)
    yield Case(name="lkj", model=example.model, args=(y,))


@_program("inclined_plane.py", torch.float32)
def _inclined_plane(example: ModuleType) -> Cases:
    data = example.observed_data[:2]
    yield Case(name="inclined_plane", model=example.model, args=(data,), differentiable=False)


@_program("neutra.py")
def _neutra(example: ModuleType) -> Cases:
    args = (torch.tensor(1.15), torch.tensor(1.0))
    flow = partial(example.iterated, 2, partial(example.block_autoregressive, residual="gated"))
    guides: dict[str, Any] = {
        "AutoDiagonalNormal": AutoDiagonalNormal(example.model, init_scale=0.05),
        "AutoNormalizingFlow": AutoNormalizingFlow(example.model, flow),
    }
    for name, guide in guides.items():
        yield Case(name=f"neutra, {name}", model=example.model, guide=guide, args=args)
        guide(*args)
        moved = NeuTraReparam(guide.requires_grad_(False)).reparam(example.model)
        yield Case(name=f"neutra, density by {name}", model=moved, args=args)


@_program("smcfilter.py")
def _smcfilter(example: ModuleType) -> Cases:
    made = example.SimpleHarmonicModel(1.0, 1.0)

    def model() -> None:
        state: dict[str, Tensor] = {}
        made.init(state, torch.tensor([1.0, 0.0]))
        for y in (0.5, -0.2):
            made.step(state, torch.tensor(y))

    yield Case(name="smcfilter", model=model)


def _svi_module(example: ModuleType) -> Cases:
    name = example.__name__.removeprefix("peer_example_")
    x = torch.randn(6)
    for rows in (6, 3):
        model = example.Model(6)
        yield Case(
            name=f"{name}, {rows} of 6 rows",
            model=model,
            guide=AutoNormal(model),
            args=(x[:rows], 1.5 * x[:rows]),
        )


for _path in ("svi_torch.py", "svi_horovod.py", "svi_lightning.py"):
    _program(_path)(_svi_module)


@_program("contrib/gp/sv-dkl.py", torch.float32)
def _sv_dkl(example: ModuleType) -> Cases:
    gp = example.gp
    images = torch.rand(3, 1, 28, 28)
    digits = torch.tensor([0.0, 1.0, 1.0])
    for name, likelihood, shape in (
        ("binary", gp.likelihoods.Binary(), []),
        ("multi-class", gp.likelihoods.MultiClass(num_classes=10), [10]),
    ):
        kernel = gp.kernels.Warping(
            gp.kernels.RBF(input_dim=10, lengthscale=torch.ones(10)), iwarping_fn=example.CNN()
        )
        process = gp.models.VariationalSparseGP(
            X=images,
            y=digits if name == "binary" else digits.long(),
            kernel=kernel,
            Xu=images[:2].clone(),
            likelihood=likelihood,
            latent_shape=torch.Size(shape),
            num_data=60,
            whiten=True,
            jitter=1e-4,
        )
        for loss in ("TraceMeanField_ELBO", "Trace_ELBO"):
            yield Case(
                name=f"gp/sv-dkl, {name}, {loss}",
                model=process.model,
                guide=process.guide,
                loss=loss,
            )


@_program("contrib/forecast/bart.py", torch.float32)
def _bart(example: ModuleType) -> Cases:
    data = torch.rand(170, 2)
    model = example.Model()
    guide = AutoNormal(model, init_loc_fn=init_to_sample)
    yield Case(name="forecast/bart", model=model, guide=guide, args=(data, torch.zeros(170, 0)))


@_program("contrib/mue/ProfileHMM.py")
def _profile_hmm(example: ModuleType) -> Cases:
    data = example.generate_data(True, True, torch.device("cpu"))
    model = example.ProfileHMM(5, data.alphabet_length)
    rows = data[:][0]
    yield Case(
        name="mue/ProfileHMM", model=model.model, guide=model.guide, args=(rows, torch.tensor(1.5))
    )


@_program("contrib/mue/FactorMuE.py")
def _factor_mue(example: ModuleType) -> Cases:
    data = example.generate_data(True, True, torch.device("cpu"))
    rows = data[:][0]
    for prior in ("Normal", "Laplace"):
        model = example.FactorMuE(
            data.max_length, data.alphabet_length, 2, batch_size=3, z_prior_distribution=prior
        )
        yield Case(
            name=f"mue/FactorMuE, {prior} prior",
            model=model.model,
            guide=model.guide,
            args=(rows, torch.tensor(1.5), torch.tensor(0.5)),
        )


@_program("contrib/epidemiology/sir.py", torch.float32)
def _epidemiology(example: ModuleType) -> Cases:
    data = torch.tensor([1.0, 1.0, 0.0, 1.0])
    kinds: dict[str, dict[str, object]] = {
        "SIR": {},
        "SEIR": {"incubation_time": 2.0},
        "superspreading SIR": {"concentration": 2.0},
        "overdispersed SIR": {"overdispersion": 1.0},
        "heterogeneous SIR": {"heterogeneous": True},
    }
    for name, more in kinds.items():
        args = SimpleNamespace(
            population=20,
            recovery_time=3.0,
            incubation_time=0.0,
            concentration=math.inf,
            overdispersion=0.0,
            heterogeneous=False,
        )
        vars(args).update(more)
        yield from _compartments(f"epidemiology, {name}", example.Model(args, data))


@_program("contrib/epidemiology/regional.py", torch.float32)
def _regional(example: ModuleType) -> Cases:
    args = SimpleNamespace(population=20, recovery_time=3.0, num_regions=2, coupling=0.1)
    data = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    yield from _compartments("epidemiology, regional SIR", example.Model(args, data))


def _compartments(name: str, model: Any) -> Cases:
    """What the method ``fit_svi`` of these models does before its first step."""
    start = model._heuristic(None, num_particles=8, ess_threshold=0.5)
    relaxed = model._relaxed_model
    guide = AutoNormal(relaxed, init_loc_fn=start, init_scale=0.01)
    yield Case(name=name, model=relaxed, guide=guide)
