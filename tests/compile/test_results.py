"""What a compiled function may return, and be given."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import attrs
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from purepyro import jit
from purepyro._errors import MutationError, TraceError

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("uncompiled")]

X = torch.arange(3.0)


@dataclasses.dataclass
class Data:
    """A data class."""

    x: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    """One that hashes."""

    x: Tensor


@attrs.define
class Fields:
    """The same of attrs."""

    x: object


class Plain:
    """A class of the user's."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Named(NamedTuple):
    """A named tuple."""

    x: Tensor
    n: int


class Net(nn.Module):
    """A network that keeps what it computed."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


class MyDict(dict[str, Tensor]):
    """A dict of another type."""


class MyList(list[Tensor]):
    """A list of another type."""


def pieces(x: Tensor) -> Iterator[Tensor]:
    """One, when it is asked for."""
    yield x


HIDDEN: dict[str, Callable[[Tensor], object]] = {
    "Data": Data,
    "Fields at k/0": lambda x: {"k": [Fields(x)]},
    "Data at 1": lambda x: (x, Data([{"deep": x}])),
    "Plain": Plain,
    "Net": Net,
    "MyDict": lambda x: MyDict(x=x),
    "MyList at 0": lambda x: (MyList([x]),),
    "Normal": lambda x: dist.Normal(x, 1.0),
    "Independent at d": lambda x: {"d": dist.Normal(x, 1.0).to_event(1)},
    "set": lambda x: {x},
    "frozenset": lambda x: frozenset([x]),
    "partial": lambda x: partial(torch.add, x),
    "function": lambda x: lambda: x,
    "generator": pieces,
    "list_iterator": lambda x: iter([x]),
    "dict_values": lambda x: {"a": x}.values(),
    "builtin_function_or_method": lambda x: x.sum,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_result_that_hides_tensors_is_refused(name: str) -> None:
    kind, _, place = name.partition(" at ")
    where = f" at {place}" if place else ""
    with pytest.raises(TraceError, match=rf"returns a \S*\b{kind}{where} \(") as caught:
        jit(HIDDEN[name])(X)
    assert "Return the tensors in one of these" in str(caught.value)


def test_the_ways_out() -> None:
    """A tuple, of which the object is made outside, or a type that is registered."""

    class Known(Plain):
        pass

    def flatten(known: Known) -> tuple[list[Tensor], None]:
        return [known.x], None

    def unflatten(parts: Iterable[Tensor], _: object) -> Known:
        return Known(*parts)

    moments = jit(lambda x: (x, x.exp()))
    assert torch.equal(dist.Normal(*moments(X)).scale, X.exp())
    _pytree.register_pytree_node(Known, flatten, unflatten)
    twice = jit(lambda known: [Known(2 * known.x)])
    for x in X, X + 1:
        (found,) = twice(Known(x))
        assert type(found) is Known
        assert torch.equal(found.x, 2 * x)
    assert twice.cache_info().currsize == 1


def test_containers_come_back_as_they_were() -> None:
    default: dict[str, object] = {"b": 1.0, "a": 2}

    def fn(x: Tensor) -> dict[str, object]:
        return {
            "z": collections.OrderedDict(b=x, a="text"),
            "a": collections.defaultdict(list, {**default, "x": [x + 1]}),
            "d": collections.deque([x * 2], maxlen=3),
            "n": Named(x, 3),
            "sorted": torch.sort(x),
            "none": None,
            "empty": ({}, [], ()),
            "kinds": (x.dtype, x.device, x.shape, slice(0, 2), torch.sin),
            "twice": [x, x],
        }

    found, wanted = jit(fn)(X), fn(X)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert type(found[name]) is type(value)
        assert str(found[name]) == str(value)
    kinds: Any = found["kinds"]
    assert type(kinds[2]) is torch.Size
    assert kinds[4] is torch.sin


def test_tensors_in_static_arguments_are_live() -> None:
    """Those in hashable objects are found by way of these; other objects are refused."""
    plain, net = Plain(X.clone()), Net(X.clone())
    fn = jit(lambda value: value.x + 1)
    for value in plain, net, Frozen(X.clone()):
        assert torch.equal(fn(value), value.x + 1)
        value.x.mul_(3.0)
        assert torch.equal(fn(value), value.x + 1)
    plain.x = X - 7
    assert torch.equal(fn(plain), X - 6)
    total = jit(lambda tensors: sum(each.sum() for each in tensors))
    held = X.clone()
    assert total(frozenset([held])) == 3.0
    held.add_(1)
    assert total(frozenset([held])) == 6.0
    assert total(frozenset([X])) == 3.0
    for other in Data(X), Fields(X), MyDict(x=X), MyList([X]), {X}:
        with pytest.raises(TraceError, match=r"argument 0 is .*must be hashable"):
            jit(lambda value: value)(other)


class Marked(Tensor):
    """A tensor of another type."""


ODD: dict[str, Callable[[], Tensor]] = {
    "layout sparse_coo": lambda: torch.eye(3).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
    "type Marked": lambda: X.as_subclass(Marked),
    "meta": lambda: torch.ones(3, device="meta"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused(kind: str) -> None:
    odd = ODD[kind]()
    with pytest.raises(TraceError, match=rf"argument 0 is .*{kind}.*\.to_dense\(\)"):
        jit(lambda x: x + 1)(odd)
    if kind != "meta":  # of which torch itself says that it is on another device
        with pytest.raises(TraceError, match=r"outside its arguments|no plain, dense"):
            jit(lambda x: x + odd.sum())(X)


def test_lazy_bits_are_resolved() -> None:
    """Of arguments, of captured tensors, and of what takes their place."""
    z = torch.complex(X, X + 1)
    spectrum = torch.fft.fft(X)
    held = z.conj().imag

    def fn(*tensors: Tensor) -> list[Tensor]:
        return [2 * x + 1 for x in tensors] + [held * 3, tensors[0].sum()]

    jitted = jit(fn)
    minus = torch.complex(X, X).conj().imag
    assert minus.is_neg()
    for _ in range(2):
        for tensors in (
            (z.conj().imag, minus, z.conj().imag),
            (X, minus),
            (minus, minus),
            (X, X + 1),
            (z.conj(), z, z.mH if z.dim() > 1 else z.real),
            (spectrum, spectrum.conj(), spectrum.imag, spectrum.conj().imag),
        ):
            torch.testing.assert_close(jitted(*tensors), fn(*tensors))
        held = X + 5
        torch.testing.assert_close(jitted(X, X + 1), fn(X, X + 1))
        held = z.conj().imag
    assert jitted.cache_info().currsize < 12


def test_odd_shapes_and_strides() -> None:
    """Scalars, expanded, transposed, overlapping, empty, shifted ones: a graph for each kind."""
    long = torch.arange(12.0)
    kinds = [
        torch.tensor(2.0),
        torch.tensor(2.0).expand(3, 4),
        long.reshape(3, 4).T,
        long[::3],
        long[3:7],
        long[5:9],
        long.as_strided((3, 2), (1, 1)),
        long.flip(0),
        torch.zeros(0, 3),
        long.double(),
        long.to(torch.bfloat16),
    ]
    fn = jit(lambda x: (2 * x, x.sum()))
    for _ in range(2):
        for x in kinds:
            found = fn(x)
            torch.testing.assert_close(found, (2 * x, x.sum()))
            assert found[0].data_ptr() != x.data_ptr() or not x.numel()
    assert fn.cache_info() == (12, 10, 32, 10)


def test_arguments_that_share_memory() -> None:
    """Reading them is right; writing is refused, and changes neither."""
    long = torch.arange(6.0)
    fn = jit(lambda x, y: x.flip(0) + 2 * y)
    assert fn(long, long).tolist() == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert fn(long[:3], long[1:4]).tolist() == [4.0, 5.0, 6.0]
    with pytest.raises(MutationError):
        jit(lambda x, y: x.add_(y))(long[:3], long[1:4])
    assert long.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
