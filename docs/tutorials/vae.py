# %% [markdown]
# # A variational autoencoder (VAE), with minibatches
#
# Handwritten digits in two dimensions: a network as the model, a network as the guide, and `fit`
# over batches.
#
# The pictures are the 1,797 digits of scikit-learn, 8 x 8 points each. The model has a latent
# point for each picture and a network that paints a picture of a point; the guide is a network
# that reads a picture and says where its point lies. Both are classes.

# %%
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
import torchopt
from sklearn.datasets import load_digits
from torch import Tensor, nn

from purepyro import Lifted, Module, apply, lift, params_of, random
from purepyro.infer import SVI, TraceMeanField_ELBO

bunch: Any = load_digits()
pictures = torch.tensor(bunch.data, dtype=torch.float32) / 16.0
digits = torch.tensor(bunch.target)
ROWS, POINTS = pictures.shape
print(f"{ROWS} pictures of {POINTS} points")

# %% [markdown]
# ## Model and guide
#
# `lift` turns a `torch.nn` network into a field whose parameters are learnt. The parameters of
# model and guide share one dict, so the two fields have different names.
#
# A batch stands for all the data. The plate says so: its size is that of the data,
# `subsample_size` that of the batch, and the likelihood is scaled up. A latent site of every row
# goes with a plate that takes its rows from outside, `subsample`; here the guide computes the site
# of a picture from the picture, so that any index does.


# %%
class Decoder(Module):
    decoder: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("pictures", ROWS, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = self.decoder(z)
            pyro.sample("x", dist.ContinuousBernoulli(logits=logits).to_event(1), obs=x)
        return logits

    def paint(self, z: Tensor) -> Tensor:
        return self.decoder(z).sigmoid()


class Encoder(Module):
    encoder: Lifted[[Tensor], Tensor]

    def point(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(x).chunk(2, -1)
        return mean, nn.functional.softplus(raw) + 1e-3

    def forward(self, x: Tensor) -> None:
        with pyro.plate("pictures", ROWS, subsample=torch.arange(len(x))):
            mean, spread = self.point(x)
            pyro.sample("z", dist.Normal(mean, spread).to_event(1))


def network(*sizes: int) -> Lifted[[Tensor], Tensor]:
    """A perceptron whose weights start from the key of the fit."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return lift(nn.Sequential(*layers[:-1]), reinitialize=True)


model = Decoder(network(2, 100, POINTS))
guide = Encoder(network(POINTS, 100, 4))

# %% [markdown]
# ## Fit over batches
#
# `fit` takes any iterable of batches, such as a `DataLoader`, once for every epoch. `data_size` is
# checked against the scale of the likelihood: a model that takes a batch for all the data is
# refused. `TraceMeanField_ELBO` computes the divergence of `z` from its prior in closed form. We
# leave the fit uncompiled: it is done before the compiler would be.

# %%
BATCH, EPOCHS = 256, 60


class Shuffled:
    """Batches in an order of their own for each epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Iterator[Tensor]:
        order = random.permutation(random.fold_in(random.key(1), self.epoch), ROWS)
        self.epoch += 1
        return iter(torch.split(pictures[order], BATCH)[:-1])


svi = SVI(model, guide, torchopt.adam(0.005), TraceMeanField_ELBO(), compiled=False)
state, losses = svi.fit(random.key(0), Shuffled(), data_size=ROWS, epochs=EPOCHS)
per_epoch = losses.reshape(EPOCHS, -1).mean(1) / ROWS
print(f"loss of a picture: {per_epoch[0]:.1f} at first, {per_epoch[-1]:.1f} at last")

# %% [markdown]
# ## Where the digits lie
#
# A method of the guide runs by `apply` too, with the guide's share of the parameters, `params_of`.
# It never saw a label; the colours are put on afterwards.

# %%
params = params_of(guide, state.params)
mean, _ = apply(guide.point, params, random.key(2), pictures)
figure, axes = plt.subplots(figsize=(6.5, 5), layout="constrained")
dots = axes.scatter(mean[:, 0], mean[:, 1], c=digits, cmap="tab10", s=6)
figure.colorbar(dots, ax=axes, ticks=range(10), label="digit")
axes.set(xlabel="z, first", ylabel="z, second", title="Digits in two dimensions")
plt.show()

# %% [markdown]
# ## What the model paints
#
# A grid of points, decoded:

# %% tags=["thumbnail"]
SIDE = 10
line = torch.linspace(-2.2, 2.2, SIDE)
grid = torch.cartesian_prod(-line, line).flip(1)
painted = apply(model.paint, params_of(model, state.params), random.key(3), grid)
tiles = nn.functional.pad(painted.reshape(SIDE, SIDE, 8, 8), (1, 1, 1, 1))  # a margin of 1
sheet = tiles.transpose(1, 2).reshape(SIDE * 10, SIDE * 10)
figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
axes.imshow(sheet.numpy(), cmap="gray_r", extent=(-2.2, 2.2, -2.2, 2.2))
axes.set(xlabel="z, first", ylabel="z, second", title="What the model paints at each point")
plt.show()

# %% [markdown]
# ## New pictures
#
# Is a picture like those of the fit? The bound on its log density says so. Upside down, digits are
# not.

# %%
loss = TraceMeanField_ELBO()
for name, batch in (("as they are", pictures), ("upside down", pictures.flip(1))):
    bound = loss.loss(model, guide, state.params, random.key(4), batch) / ROWS
    print(f"{name}: loss of a picture {bound:.1f}")
