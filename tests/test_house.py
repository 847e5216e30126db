"""The house rules of CONTRIBUTING.md that no tool checks, read off the source tree.

Layers and cycles are import-linter's, most other rules ruff's: both run in `make lint`. Each check
takes the modules of a package and returns its complaints, so that each is also shown to complain
about a small bad package.
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
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "purepyro"

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
        return self.path.parts[0] == "_compat"

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


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# Underscored, and Python's own.
PYTHONS = frozenset({"_asdict", "_at_fork_reinit", "_getframe", "_is_owned", "_make", "_replace"})


def private_names(source: Source, own: frozenset[str]) -> Iterator[tuple[ast.AST, str]]:
    """The names of torch, Pyro and torchopt in a module that these keep private.

    Args:
        source: The module.
        own: The underscored names that the package itself defines.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if _is_foreign(f"{node.module}.{alias.name}"):
                    yield node, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _is_foreign(alias.name):
                    yield node, alias.name
        elif isinstance(node, ast.Attribute) and _is_private(node.attr):
            if node.attr not in own | PYTHONS or _dotted(node).startswith(("torch.", "pyro.")):
                yield node, node.attr
        elif isinstance(node, ast.Call) and _dotted(node.func).split(".")[-1] in _LOOKUPS:
            for arg in node.args:
                name = arg.value if isinstance(arg, ast.Constant) else None
                if isinstance(name, str) and (
                    _is_foreign(name.replace(":", ".")) or (_is_private(name) and name not in own)
                ):
                    yield node, name


_LOOKUPS = frozenset(
    {"delattr", "getattr", "hasattr", "held", "import_module", "private", "private_or", "setattr"}
)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _is_foreign(path: str) -> bool:
    first, *rest = path.split(".")
    return first in ("torch", "pyro", "torchopt") and (
        any(map(_is_private, rest)) or path.startswith("torch._")
    )


def own_names(sources: list[Source]) -> frozenset[str]:
    """The underscored names that a package defines: functions, classes, variables, attributes."""
    found: set[str] = set()
    for source in sources:
        found.update(source.path.with_suffix("").parts)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if _dotted(node.value) in ("self", "cls"):
                    found.add(node.attr)
            elif isinstance(node, ast.Assign) and _dotted(node.targets[0]) == "__slots__":
                found.update(re.findall(r"\w+", ast.unparse(node.value)))
    return frozenset(found)


# How many names private to torch and Pyro each module touches. Fewer are welcome.
PRIVATE_NAMES = {
    "_compat/_distributions.py": 2,
    "_compat/_enumeration.py": 5,
    "_compat/_function_modes.py": 4,
    "_compat/_handlers.py": 5,
    "_compat/_modules.py": 2,
    "_compat/_plates.py": 1,
    "_compat/_pyro_guides.py": 1,
    "_compat/_random.py": 11,
    "_compat/_thread_state.py": 13,
    "_compat/_tracing.py": 8,
    "_compat/_transforms.py": 10,
    "_compat/_turns.py": 2,
    "_compile/inductor/_cpp_buffers.py": 2,
    "_compile/inductor/_cpp_header.py": 1,
    "_compile/inductor/_cpp_philox.py": 2,
    "_compile/inductor/_cpp_wrapper.py": 3,
    "_compile/inductor/_functional.py": 4,
    "_compile/inductor/_inductor.py": 7,
    "_compile/inductor/_quick_codegen.py": 5,
}


def private_names_by_file(sources: list[Source]) -> dict[str, int]:
    """How many private names each module touches, of those that touch any."""
    own = own_names(sources)
    found = {s.path.as_posix(): {name for _, name in private_names(s, own)} for s in sources}
    return {path: len(names) for path, names in found.items() if names}


# ------------------------------------------------------------------------------------------ checks


def nobody_imports_the_root(sources: list[Source]) -> Iterator[str]:
    """The root re-exports; who is inside imports from where a thing is defined."""
    names = frozenset(source.name for source in sources)
    for source in sources:
        for node, target in imports_of(source, names):
            if target == source.package or isinstance(node, ast.Import):
                yield source.at(node, f"imports the root package, by {target}")


def private_names_stand_in_one_package(sources: list[Source]) -> Iterator[str]:
    """What torch and Pyro keep private is touched in ``_compat``, and for Inductor beside it."""
    own = own_names(sources)
    for source in sources:
        if not source.path.as_posix().startswith(("_compat/", "_compile/inductor/")):
            for node, name in private_names(source, own):
                yield source.at(node, f"{name} is private to another library")


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
    private_names_stand_in_one_package,
    nobody_imports_the_root,
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


def test_no_more_private_names_are_touched(sources: list[Source]) -> None:
    found = private_names_by_file(sources)
    more = {path: count for path, count in found.items() if count > PRIVATE_NAMES.get(path, 0)}
    assert not more, f"more private names than the list says: {more}"
    assert sum(found.values()) <= 88


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
    module = importlib.import_module(name)
    assert module.__all__
    assert list(names_are_shown(module)) == []


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
    (nobody_imports_the_root, {"infer/_x.py": "from .. import run\n"}, "infer/_x.py:1"),
    (nobody_imports_the_root, {"_x.py": "from toy import run\n"}, "_x.py:1"),
    (nobody_imports_the_root, {"_x.py": "import toy.random\n"}, "by toy.random"),
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
    (
        private_names_stand_in_one_package,
        {"_run/_x.py": "from torch._C import hidden\n"},
        "_run/_x.py:1: torch._C.hidden is private",
    ),
    (
        private_names_stand_in_one_package,
        {"infer/_x.py": "import torch\ndepth = torch.zeros(1)._version\n"},
        "infer/_x.py:2: _version is private",
    ),
    (
        private_names_stand_in_one_package,
        {"infer/_x.py": "x = getattr(run, '_hidden')\n"},
        "infer/_x.py:1: _hidden is private",
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
