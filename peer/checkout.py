"""Programs of a checkout of Pyro, imported by path: nothing of theirs is copied.

The library itself is the one that is installed; only programs come from the checkout.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# What examples import for plots, downloads and other machines, which no model of theirs needs.
_STANDINS = ("horovod", "lightning", "seaborn", "torchvision", "visdom", "wget")


class _Standin(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Standins(MetaPathFinder, Loader):
    """The last finder: it has a stand-in for what is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _STANDINS:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Standin(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class Checkout:
    """A checkout of Pyro at ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        sys.meta_path.append(_Standins())

    def example(self, path: str) -> ModuleType:
        """The module at ``path`` in the folder of examples, loaded anew."""
        file = self.root / "examples" / path
        with self._neighbours(file.parent):
            spec = importlib.util.spec_from_file_location(f"peer_example_{file.stem}", file)
            if spec is None or spec.loader is None:
                raise FileNotFoundError(file)
            module = importlib.util.module_from_spec(spec)
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                spec.loader.exec_module(module)
        logging.disable(logging.CRITICAL)
        return module

    @contextmanager
    def _neighbours(self, folder: Path) -> Iterator[None]:
        """Let a program import its neighbours by their bare names (``data``), for itself alone."""
        before = set(sys.modules)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None)
                if file is not None and Path(file).is_relative_to(self.root):
                    del sys.modules[name]
