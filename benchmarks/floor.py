"""What a careful expert gets from torch by hand: no framework, one flat vector, ``torch.compile``.

All latent sites lie in one vector, as do their locations and scales, so that the guide, the
gradient and Adam are a few operations whatever the number of sites. Noise comes from torch's own
generator.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeAlias

import attrs
import numpy as np
import torch
from models_floor import HALF_LOG_TAU
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.proxy_tensor import make_fx

from models import Problem

State: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Locations over raw scales, Adam's two moments, and the count of steps."""

Block: TypeAlias = Callable[..., tuple[State, Tensor]]

RATE, BETA_1, BETA_2, EPS = 0.01, 0.9, 0.999, 1e-8
LONGEST_COMPILE = 60.0


@attrs.frozen
class Floor:
    """A problem, by hand."""

    problem: Problem

    @property
    def size(self) -> int:
        """How many latent numbers there are."""
        return sum(math.prod(shape) for shape in self.problem.floor.shapes.values())

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The data."""
        return tuple(torch.from_numpy(array) for array in self.problem.arrays)

    def init(self) -> State:
        """Zero, with a scale of 0.1."""
        raw = torch.full((self.size,), math.log(math.expm1(0.1)))
        params = torch.stack([torch.zeros(self.size), raw])
        return params, torch.zeros_like(params), torch.zeros_like(params), torch.zeros(())

    def loss(self, params: Tensor, noise: Tensor, *data: Tensor) -> Tensor:
        """Minus the ELBO, of one draw."""
        scale = torch.nn.functional.softplus(params[1])
        latent = params[0] + scale * noise
        values: dict[str, Tensor] = {}
        log_density, start = (0.5 * noise.square() + torch.log(scale) + HALF_LOG_TAU).sum(), 0
        for name, shape in self.problem.floor.shapes.items():
            stop = start + math.prod(shape)
            value, start = latent[start:stop].view(shape), stop
            if name in self.problem.floor.positive:
                log_density = log_density + value.sum()
                value = value.exp()
            values[name] = value
        return -(log_density + self.problem.floor.log_joint(values, *data))

    def step(self, state: State, noise: Tensor, *data: Tensor) -> tuple[State, Tensor]:
        """One step of Adam."""
        params, first, second, count = state
        gradient, loss = torch.func.grad_and_value(self.loss)(params, noise, *data)
        count = count + 1
        first = BETA_1 * first + (1 - BETA_1) * gradient
        second = BETA_2 * second + (1 - BETA_2) * gradient.square()
        root = (second / (1 - BETA_2**count)).sqrt() + EPS
        params = params - RATE * first / (1 - BETA_1**count) / root
        return (params, first, second, count), loss

    def steps(self, state: State, noise: Tensor, *data: Tensor) -> tuple[State, Tensor]:
        """A step for each row of the noise, unrolled."""
        losses = []
        for row in noise.unbind(0):
            state, loss = self.step(state, row, *data)
            losses.append(loss)
        return state, torch.stack(losses)

    def compiled_step(self) -> Callable[[State], tuple[State, Tensor]]:
        """From state to state and loss."""
        compiled, size, data = torch.compile(self.step, **COMPILE), self.size, self.tensors

        def step(state: State) -> tuple[State, Tensor]:
            return compiled(state, torch.randn(size), *data)

        return step

    def unrolled(self, count: int = 10) -> Run:
        """A loop in Python over unrolled steps; the noise of a block drawn at once."""
        block: Block = torch.compile(self.steps, **COMPILE)
        return Run(self, block, (count, self.size), f"{count} steps unrolled")

    def looped(self, unrolled: int = 1) -> Run:
        """A ``while_loop`` with the C++ wrapper, of unrolled steps."""
        turns, size, data = self.problem.block // unrolled, self.size, self.tensors
        graph = make_fx(self.steps)(self.init(), torch.randn(unrolled, size), *data)

        def block(state: State, noise: Tensor, *data: Tensor) -> tuple[State, Tensor]:
            def goes_on(i: Tensor, losses: Tensor, *state: Tensor) -> Tensor:
                return i < turns

            def turn(i: Tensor, losses: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
                index = i.view(1)
                state, new = graph(state, torch.index_select(noise, 0, index)[0], *data)
                return i + 1, losses.index_copy(0, index, new[None]), *state

            start = torch.zeros((), dtype=torch.int64), torch.zeros(turns, unrolled), *state
            _, losses, *after = while_loop(goes_on, turn, start)
            return tuple(after), losses.view(-1)

        compiled: Block = torch.compile(block, **COMPILE, options={"cpp_wrapper": True})
        how = f"while_loop, C++ wrapper, {unrolled} a turn"
        return Run(self, compiled, (turns, unrolled, size), how)

    def fastest(self) -> tuple[Run, dict[str, tuple[float, float]]]:
        """The best run, and seconds to compile and seconds a step of all that were tried."""
        tried: dict[str, tuple[float, float]] = {}
        runs = [self.unrolled(), self.looped(), self.looped(5)]
        for run in runs:
            start = time.perf_counter()
            run(self.problem.block)
            compiled = time.perf_counter()
            run(2 * self.problem.block)
            took = (time.perf_counter() - compiled) / (2 * self.problem.block)
            tried[run.how] = compiled - start, took
        good = [run for run in runs if tried[run.how][0] <= LONGEST_COMPILE] or runs[:1]
        return min(good, key=lambda run: tried[run.how][1]), tried


@attrs.frozen
class Run:
    """Many steps from the start, in blocks."""

    floor: Floor
    block: Block
    noise: tuple[int, ...]
    how: str

    def __call__(self, count: int) -> np.ndarray:
        """The losses."""
        state, data, losses = self.floor.init(), self.floor.tensors, []
        for _ in range(count // math.prod(self.noise[:-1])):
            state, loss = self.block(state, torch.randn(self.noise), *data)
            losses.append(loss)
        return torch.cat(losses).numpy()


COMPILE = {"fullgraph": True, "dynamic": False}
