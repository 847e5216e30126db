"""Attributes that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Lazy(Generic[T]):
    """As ``functools.cached_property``, without a lock.

    Up to Python 3.11 that has one for all instances: threads would wait for each other's, and for
    ever in a child that was forked while another thread computed one.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """The value, which from now on is an attribute of the instance itself."""
        if instance is None:
            return self
        value = vars(instance)[self._name] = self._compute(instance)
        return value
