"""What torch and Pyro keep private, looked up by name in this package only.

A release may rename any of it. That costs what the name is needed for, which says so when it is
used, and never ``import purepyro``: each name is looked up by ``private``, whose result refuses to
be used where there is none, or by ``private_or``, which has something to use in its place.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from typing import Any, Final, NoReturn

from .._errors import UnsupportedVersionError

LOGGER = logging.getLogger("purepyro")

TESTED: Final = {"torch": ("2.13.0", "2.14.1"), "pyro-ppl": ("1.9.1", "1.9.2")}
"""The oldest and the newest release that the test suite passes on."""


class Missing:
    """What stands for a private name that this release lacks: any use of it is an error.

    Args:
        path: The name.
        use: What it is needed for.
    """

    __slots__ = ("_path", "_use")

    def __init__(self, path: str, use: str) -> None:
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_use", use)

    def refuse(self, *_: object, **__: object) -> NoReturn:
        """Say what is missing.

        Raises:
            UnsupportedVersionError: always.
        """
        raise UnsupportedVersionError(_message(self._path, self._use))

    __call__ = __instancecheck__ = __setattr__ = __enter__ = __exit__ = refuse
    __bool__ = __contains__ = __getitem__ = __iter__ = __len__ = refuse

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse()


def private(path: str, use: str) -> Any:
    """What has a private name: the thing itself, or a ``Missing``.

    Args:
        path: Where it is, as ``"module:attribute.attribute"``.
        use: What it is needed for, after "purepyro needs it for".
    """
    try:
        return resolve_name(path)
    except (ImportError, AttributeError):
        return Missing(path, use)


def private_or(path: str, instead: object, cost: str) -> Any:
    """What has a private name, or something in its place; the log tells what that costs.

    Args:
        path: Where it is, as ``"module:attribute.attribute"``.
        instead: What is used without it.
        cost: What is different then, a sentence without its full stop.
    """
    found = private(path, "")
    if isinstance(found, Missing):
        LOGGER.warning("%s has no %s: %s.", _release(path), _spelled(path), cost)
        return instead
    return found


def held(owner: object, name: str, use: str) -> Any:
    """A private attribute of an object of torch or Pyro.

    Raises:
        UnsupportedVersionError: if the object has none.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        kind = owner if isinstance(owner, type) else type(owner)
        path = f"{kind.__module__}:{kind.__qualname__}.{name}"
        raise UnsupportedVersionError(_message(path, use)) from None


def _message(path: str, use: str) -> str:
    package = _package(path)
    oldest, newest = TESTED[package]
    return (
        f"{_release(path)} has no {_spelled(path)}, which purepyro needs for {use}. The name is "
        f"private, so a release may move it; purepyro is tested on {package} {oldest} to {newest}. "
        f"Install one of these (pip install {package}=={newest}), or a newer purepyro."
    )


def _package(path: str) -> str:
    return "pyro-ppl" if path.startswith("pyro") else "torch"


def _release(path: str) -> str:
    package = _package(path)
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _spelled(path: str) -> str:
    return path.replace(":", ".").strip(".")
