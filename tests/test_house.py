"""The house rules of CONTRIBUTING.md, read off the source tree.

Each check takes the modules of a package and returns its complaints, so that each is also shown
to complain about a small bad package.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "purepyro"

# Data flows from left to right; imports, also indirect ones, go from right to left.
LAYERS = (
    "_errors",
    "_core",
    "_compat",
    "random",
    "_networks",
    "_declare",
    "_run",
    "_lift",
    "_compile",
    "infer",
    "ensemble",
    "distributed",
)

PUBLIC = (
    "purepyro",
    "purepyro.random",
    "purepyro.infer",
    "purepyro.ensemble",
    "purepyro.distributed",
)

# What draws from torch's global generator, or steers it.
TORCH_DRAWS = frozenset(
    {
        "bernoulli",
        "binomial",
        "manual_seed",
        "multinomial",
        "normal",
        "poisson",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "randperm",
        "seed",
        "set_rng_state",
    }
)
TENSOR_DRAWS = frozenset(
    {
        "bernoulli_",
        "cauchy_",
        "exponential_",
        "geometric_",
        "log_normal_",
        "normal_",
        "random_",
        "uniform_",
    }
)

# Boundaries to untyped code that stand outside of `_compat`.
UNTYPED = frozenset({"infer/losses/_contraction.py"})

IGNORES = re.compile(r"#\s*(type:\s*ignore|pyright:|mypy:|noqa|ruff:\s*noqa)")


@dataclass(frozen=True)
class Source:
    """A module of a package, as text."""

    package: str
    path: Path  # relative to the package's folder
    text: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        """The module's syntax tree."""
        return ast.parse(self.text)

    @property
    def is_init(self) -> bool:
        """Whether this is the ``__init__.py`` of a package."""
        return self.path.name == "__init__.py"

    @property
    def name(self) -> str:
        """The dotted name of the module."""
        parts = self.path.with_suffix("").parts
        return ".".join((self.package, *(parts[:-1] if self.is_init else parts)))

    @property
    def layer(self) -> str:
        """The part of the package that the module belongs to: a file or folder at the top."""
        return self.name.removeprefix(self.package).lstrip(".").split(".")[0]

    @property
    def may_be_untidy(self) -> bool:
        """Whether this is the boundary to what other libraries leave untyped."""
        return self.path.parts[0] == "_compat" or self.path.as_posix() in UNTYPED

    def at(self, node: ast.AST | int, text: str) -> str:
        """The complaint ``text``, with the place it is about."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {text}"


Check = Callable[[list[Source]], Iterable[str]]


def read_package(folder: Path) -> list[Source]:
    """All modules under ``folder``, in the order of their paths."""
    return [
        Source(folder.name, path.relative_to(folder), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def imports_of(source: Source, names: frozenset[str]) -> Iterator[tuple[ast.stmt, str]]:
    """The modules of the same package that ``source`` imports, where ``names`` lists them all."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == source.package:
                    yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            if base.split(".")[0] == source.package:
                for alias in node.names:
                    member = f"{base}.{alias.name}"
                    yield node, member if member in names else base


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    parts = parts[: len(parts) - node.level + source.is_init]
    return ".".join([*parts, node.module] if node.module else parts)


def _graph(sources: list[Source]) -> dict[str, set[str]]:
    names = frozenset(source.name for source in sources)
    return {source.name: {target for _, target in imports_of(source, names)} for source in sources}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# ------------------------------------------------------------------------------------------ checks


def imports_stand_at_the_top(sources: list[Source]) -> Iterator[str]:
    """No import inside a function: what a module needs is seen at its top."""
    for source in sources:
        for function in ast.walk(source.tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        yield source.at(node, f"import inside {function.name}()")


def types_import_as_values_do(sources: list[Source]) -> Iterator[str]:
    """No import under ``TYPE_CHECKING``: it hides cycles, and the types exist at run time too."""
    for source in sources:
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.Name | ast.Attribute)
                and _dotted(node.test).split(".")[-1] == "TYPE_CHECKING"
                and any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node))
            ):
                yield source.at(node, "import under TYPE_CHECKING")


def nobody_imports_the_root(sources: list[Source]) -> Iterator[str]:
    """The root re-exports; who is inside imports from where a thing is defined."""
    names = frozenset(source.name for source in sources)
    for source in sources:
        for node, target in imports_of(source, names):
            if target == source.package or isinstance(node, ast.Import):
                yield source.at(node, f"imports the root package, by {target}")


def imports_make_no_cycle(sources: list[Source]) -> Iterator[str]:
    """The modules can be put in a line."""
    try:
        TopologicalSorter(_graph(sources)).prepare()
    except CycleError as error:
        yield "import cycle: " + " <- ".join(error.args[1])


def imports_point_down(sources: list[Source]) -> Iterator[str]:
    """No layer reaches a later one, on any way; the last two are imported by the root only."""
    graph = _graph(sources)
    layers = {source.name: source.layer for source in sources}
    for source in sources:
        if source.layer in LAYERS:
            above = set(LAYERS[LAYERS.index(source.layer) + 1 :])
        else:
            above = {"infer", "ensemble"} if source.layer else set()
        for path in _paths(graph, source.name):
            if layers.get(path[-1]) in above:
                yield f"{source.path}: reaches up, {' -> '.join(path)}"


def _paths(graph: dict[str, set[str]], start: str) -> Iterator[list[str]]:
    """A shortest import path from ``start`` to each module that it reaches."""
    queue, seen = [[start]], {start}
    for path in queue:
        yield path
        for target in sorted(graph.get(path[-1], set()) - seen):
            seen.add(target)
            queue.append([*path, target])


def public_names_are_sorted(sources: list[Source]) -> Iterator[str]:
    """A public ``__init__.py`` ends in an ``__all__``, sorted as ruff's RUF022 sorts it."""
    for source in sources:
        if source.name.replace(source.package, "purepyro", 1) not in PUBLIC or not source.is_init:
            continue
        exported = _exported(source.tree)
        if exported is None:
            yield source.at(1, "no __all__")
        elif exported != sorted(exported, key=_rank):
            yield source.at(1, f"__all__ is not sorted; write {sorted(exported, key=_rank)}")


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [_dotted(t) for t in node.targets] == ["__all__"]:
            value = ast.literal_eval(node.value)
            return [str(name) for name in value]
    return None


def _rank(name: str) -> tuple[int, str]:
    constant = len(name) > 1 and name.isupper()
    return (0 if constant else 1 if name[:1].isupper() else 2), name


def nothing_is_ignored(sources: list[Source]) -> Iterator[str]:
    """No comment silences a checker, but in the boundary."""
    for source in sources:
        if source.may_be_untidy:
            continue
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type == tokenize.COMMENT and IGNORES.search(token.string):
                yield source.at(token.start[0], f"{token.string!r}")


def randomness_has_a_key(sources: list[Source]) -> Iterator[str]:
    """Nothing draws from torch's global generator, but in ``random`` and the boundary."""
    for source in sources:
        if source.may_be_untidy or source.layer == "random":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                name = _dotted(node.func)
                method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                if name.removeprefix("torch.") in TORCH_DRAWS and name.startswith("torch."):
                    yield source.at(node, f"{name}() draws without a key")
                elif method in TENSOR_DRAWS:
                    yield source.at(node, f".{method}() draws without a key")
            elif isinstance(node, ast.ImportFrom) and node.module == "torch":
                for alias in node.names:
                    if alias.name in TORCH_DRAWS:
                        yield source.at(node, f"torch.{alias.name} draws without a key")


def model_params_key_come_in_order(sources: list[Source]) -> Iterator[str]:
    """``(model, params, key)``, in this order, in every signature that takes two or more."""
    order = ["model", "params", "key"]
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
                found = [name for name in given if name in order]
                if found != [name for name in order if name in found]:
                    yield source.at(node, f"{node.name}({', '.join(found)}) is out of order")


CHECKS: tuple[Check, ...] = (
    imports_stand_at_the_top,
    types_import_as_values_do,
    nobody_imports_the_root,
    imports_make_no_cycle,
    imports_point_down,
    public_names_are_sorted,
    nothing_is_ignored,
    randomness_has_a_key,
    model_params_key_come_in_order,
)


def names_are_shown(module: ModuleType) -> Iterator[str]:
    """Every public class and function says what it is, and shows it in a doctest.

    Errors need no example: where they are raised there is a test for their message.
    """
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue  # a type alias, a NewType, a module, a constant
        text = value.__doc__ or ""
        is_error = inspect.isclass(value) and issubclass(value, BaseException)
        if not text.strip():
            yield f"{module.__name__}.{name} has no docstring"
        elif ">>>" not in text and not is_error:
            yield f"{module.__name__}.{name} has no example"


# ------------------------------------------------------------------------------------------- tests


def name_of(value: object) -> str:
    """A readable test id."""
    return value.__name__ if inspect.isroutine(value) else ""


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """The modules of purepyro."""
    return read_package(PACKAGE)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_purepyro_keeps_the_rule(check: Check, sources: list[Source]) -> None:
    assert sources
    complaints = list(check(sources))
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "name",
    # Looked up as files, so that listing the tests imports nothing.
    [
        name
        for name in PUBLIC
        if (PACKAGE.parent.joinpath(*name.split(".")) / "__init__.py").exists()
    ],
)
def test_public_names_are_shown(name: str) -> None:
    assert list(names_are_shown(importlib.import_module(name))) == []


# A package that keeps all rules. Each bad one below differs from it by the files named.
GOOD = {
    "__init__.py": (
        '"""A package."""\nfrom ._run._apply import run\n__all__ = ["ONE", "Two", "run"]\n'
    ),
    "_errors.py": "class Oops(Exception): ...\n",
    "_compat/_pyro.py": "import torch\ntorch.manual_seed(0)  # type: ignore\n",
    "_helper.py": "from ._errors import Oops\n",
    "_declare/_module.py": "from .. import _helper\nfrom ..random import key\n",
    "_run/_apply.py": "from .._declare._module import key\ndef run(model, params, key, x): ...\n",
    "random/__init__.py": "from ._key import key\n__all__ = ['key']\n",
    "random/_key.py": "import torch\nfrom .._errors import Oops\nkey = torch.randint\n",
    "infer/__init__.py": "from .._run._apply import run\n__all__ = ['run']\n",
    "infer/_private/__init__.py": "",
}

BAD: tuple[tuple[Check, dict[str, str], str], ...] = (
    (imports_stand_at_the_top, {"_run.py": "def f():\n    import os\n"}, "_run.py:2: import"),
    (
        imports_stand_at_the_top,
        {"_run.py": "class A:\n  async def f(self):\n    from .random import key\n"},
        "inside f()",
    ),
    (
        types_import_as_values_do,
        {"_run.py": "import typing\nif typing.TYPE_CHECKING:\n    import os\n"},
        "_run.py:2: import under TYPE_CHECKING",
    ),
    (
        types_import_as_values_do,
        {"_run.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os\n"},
        "_run.py:2: import under TYPE_CHECKING",
    ),
    (nobody_imports_the_root, {"infer/_x.py": "from .. import run\n"}, "infer/_x.py:1"),
    (nobody_imports_the_root, {"_x.py": "from toy import run\n"}, "_x.py:1"),
    (nobody_imports_the_root, {"_x.py": "import toy.random\n"}, "by toy.random"),
    (imports_make_no_cycle, {"_errors.py": "from ._helper import help\n"}, "toy._helper"),
    (imports_make_no_cycle, {"_errors.py": "from . import _helper\n"}, "toy._helper"),
    (
        imports_point_down,
        {"_helper.py": "from ._run._apply import run\n", "_run/_apply.py": ""},
        "_declare/_module.py: reaches up, toy._declare._module -> toy._helper -> toy._run._apply",
    ),
    (
        imports_point_down,
        {"random/_x.py": "from .._declare._module import key\n"},
        "_x.py: reaches",
    ),
    (imports_point_down, {"_other.py": "from .infer import run\n"}, "_other.py: reaches up"),
    (public_names_are_sorted, {"random/__init__.py": "__all__ = ['split', 'Key']\n"}, "sorted"),
    (public_names_are_sorted, {"infer/__init__.py": "run = 1\n"}, "no __all__"),
    (nothing_is_ignored, {"_run.py": "x: int = ''  # type: ignore[assignment]\n"}, "_run.py:1"),
    (nothing_is_ignored, {"_run.py": "\nx: int = ''  # pyright: ignore\n"}, "_run.py:2"),
    (nothing_is_ignored, {"random/_key.py": "import os  # noqa: F401\n"}, "random/_key.py:1"),
    (randomness_has_a_key, {"_run.py": "import torch\nx = torch.randn(3)\n"}, "torch.randn()"),
    (randomness_has_a_key, {"infer/_x.py": "from torch import rand\n"}, "torch.rand draws"),
    (randomness_has_a_key, {"_run.py": "torch.empty(3).normal_()\n"}, ".normal_() draws"),
    (
        model_params_key_come_in_order,
        {"_run.py": "def run(model, key, params, x): ...\n"},
        "run(model, key, params) is out of order",
    ),
    (
        model_params_key_come_in_order,
        {"_run.py": "class A:\n  def step(self, key, /, params): ...\n"},
        "step(key, params) is out of order",
    ),
)


def write_package(folder: Path, files: dict[str, str]) -> list[Source]:
    """The modules of a package of these files, under ``folder``."""
    for path, text in files.items():
        target = folder / "toy" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return read_package(folder / "toy")


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_a_good_package_passes(check: Check, tmp_path: Path) -> None:
    assert list(check(write_package(tmp_path, GOOD))) == []


@pytest.mark.parametrize(("check", "files", "expected"), BAD, ids=name_of)
def test_a_bad_package_fails(
    check: Check, files: dict[str, str], expected: str, tmp_path: Path
) -> None:
    complaints = list(check(write_package(tmp_path, {**GOOD, **files})))
    assert any(expected in complaint for complaint in complaints), complaints


def test_every_check_is_shown_to_fail() -> None:
    assert {check for check, _, _ in BAD} == set(CHECKS)


def test_an_unshown_name_fails() -> None:
    def shown() -> None:
        """Shown.

        >>> shown()
        """

    def told() -> None:
        """Told, not shown."""

    class Oops(Exception):
        """An error."""

    class Mute: ...

    module = ModuleType("toy")
    vars(module).update(shown=shown, told=told, Oops=Oops, Mute=Mute, one=1)
    vars(module)["__all__"] = ["Mute", "Oops", "one", "shown", "told"]
    assert list(names_are_shown(module)) == [
        "toy.Mute has no docstring",
        "toy.told has no example",
    ]
