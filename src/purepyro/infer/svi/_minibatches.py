"""Minibatches: their arguments, their rows, and the scale to the full data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized

import attrs
import torch

from ..._core._trees import tensors_in
from ..._core._whole_numbers import as_int_or_none, whole
from ..._errors import DeclarationError, ShapeError, describe
from ..._run._sites import Site
from ._nonfinite import Batch


def as_batch(item: object) -> Batch:
    """The arguments of a step: a tuple or list by place, a mapping by name, all else is one."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        return Batch((), {str(name): value for name, value in item.items()})
    return Batch(tuple(item) if isinstance(item, (tuple, list)) else (item,), {})


def rows_of(batch: Batch) -> int | None:
    """How many rows a batch has: the length of its first tensor."""
    for argument in (*batch.args, *batch.kwargs.values()):
        for tensor in tensors_in(argument):
            if tensor.ndim:
                return tensor.size(0)  # a nested tensor has no len()
    return None


def epochs_of(batches: Iterable[object], epochs: int) -> Iterator[Iterator[Batch]]:
    """Each epoch's batches; an iterable that is used up before the last is refused."""
    for epoch in range(epochs):
        if epoch and iter(batches) is batches:
            raise DeclarationError(
                f"The batches are an iterator, {describe(batches)}, which is used up after one of "
                f"{epochs} epochs. Pass a list, a DataLoader, or another iterable that starts anew."
            )
        yield map(as_batch, batches)


@attrs.define
class Rows:
    """Checks the rows of each batch, and that the model scales them to the full data set.

    Attributes:
        data_size: How many rows the full data set has; ``None``: no scale to check.
        batches: What one epoch iterates over.
        look: The sites of the model on a batch.
    """

    data_size: int | None = attrs.field(converter=as_int_or_none)
    batches: Iterable[object]
    look: Callable[[Batch], Mapping[str, Site]]
    _known: set[int] = attrs.field(init=False, factory=set)
    _epoch: int = attrs.field(init=False, default=0)
    _usual: int | None = attrs.field(init=False, default=None)
    _warned: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        size = self.data_size
        if size is not None and whole(size, 1) is None:
            raise ShapeError(
                f"data_size is {describe(size)}, which is no number of rows. Give the number of "
                "rows of the full data set, or None if each batch is scaled by hand."
            )

    def start_epoch(self) -> None:
        """The next batch is the first of an epoch."""
        self._epoch = 0

    def check(self, batch: Batch) -> None:
        """Refuse a batch that is empty, too long, or not scaled to the full data set."""
        rows = rows_of(batch)
        if rows == 0:
            raise ShapeError(
                "A minibatch is empty (its first tensor has no rows), so it says nothing about the "
                "data and has no scale. Leave it out; a DataLoader or torch.split makes none."
            )
        if rows is None:
            if self.data_size is not None:
                raise ShapeError(
                    f"data_size is {self.data_size}, but a batch has no tensor with rows, so its "
                    "share of the data is not known. Pass tensors whose first dimension is the row."
                )
            return
        self._note_ragged(rows)
        if self.data_size is None:
            return
        self._epoch += rows
        seen = self._epoch if isinstance(self.batches, Sized) else rows
        if seen > self.data_size:
            raise ShapeError(
                f"{'One epoch' if seen > rows else 'One batch'} has {seen} rows or more, but "
                f"data_size is {self.data_size}, so the scale of the likelihood would be wrong. "
                "Give the number of rows of the full data set. (For draws with replacement pass "
                "a generator of batches.)"
            )
        if rows not in self._known:
            self._check_scale(batch, rows, self.data_size)
            self._known.add(rows)

    def _note_ragged(self, rows: int) -> None:
        self._usual = rows if self._usual is None else self._usual
        if rows == self._usual or self._warned:
            return
        self._warned = True
        weight = self._usual / rows
        warnings.warn(
            f"A minibatch has {rows} rows where the first had {self._usual}. Scaled to the full "
            f"data set, each of its rows counts {weight:.3g} times as much as one of the first "
            "batch; and a compiled step is compiled once more for the new shape. Drop it "
            "(drop_last=True), or make the batches alike.",
            stacklevel=2,
        )

    def _check_scale(self, batch: Batch, rows: int, data_size: int) -> None:
        expected = data_size / rows
        for site in self.look(batch).values():
            if site.kind != "observed" or rows not in site.value.shape:
                continue
            scale = torch.as_tensor(site.scale)
            if not torch.allclose(scale, torch.full_like(scale, expected), rtol=1e-4, atol=0.0):
                first = scale.flatten()[0].item()
                raise ShapeError(
                    f"The observed site {site.name!r} has {rows} of {data_size} rows and the scale "
                    f"{first:.6g}, but {_ratio(data_size, rows)} is needed to stand for all the "
                    f"data: the prior would count {expected / first:.3g} times as much as it "
                    f'should. Put the site in pyro.plate("data", {data_size}, '
                    "subsample_size=len(x)), or with subsample=index; or pass data_size=None to "
                    "scale by hand."
                )


def _ratio(data_size: int, rows: int) -> str:
    return f"{data_size} / {rows} = {data_size / rows:.6g}"
