"""Compare the stubs with the installed torch and pyro-ppl.

Every name in a stub must exist at run time, and every function must take the parameters that the stub
says: same names, same order, optional where the stub says so. Prints the differences; exits 1 if any.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent

# Known and meant differences, as prefixes of dotted names.
ALLOWED = (
    # The stub makes the mixin a torch distribution, as all its concrete classes are.
    "pyro.distributions.torch_distribution.TorchDistributionMixin.",
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The dotted name and the syntax tree of every stub."""
    for package in ("pyro", "torch"):
        root = HERE / f"{package}-stubs"
        for path in sorted(root.rglob("*.pyi")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            yield ".".join(parts), ast.parse(path.read_text())


def stub_parameters(node: ast.FunctionDef) -> dict[str, bool]:
    """The names of the parameters, in order, and whether each is required."""
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    required = len(plain) - len(args.defaults)
    result = {arg.arg: index < required for index, arg in enumerate(plain)}
    if args.vararg:
        result["*" + args.vararg.arg] = False
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        result[arg.arg] = default is None
    if args.kwarg:
        result["**" + args.kwarg.arg] = False
    return result


def runtime_parameters(function: object) -> dict[str, bool] | None:
    """The same of a function at run time; None where Python cannot tell."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {
        stars.get(p.kind, "") + p.name: p.default is p.empty and p.kind not in stars
        for p in signature.parameters.values()
    }


def compare(name: str, node: ast.FunctionDef, function: object, overloads: int) -> Iterator[str]:
    """What the stub of a function says that is not so."""
    actual = runtime_parameters(function)
    if actual is None:
        return
    expected = stub_parameters(node)
    # A wrapper that hides its parameters: `_make_handler`, `torch.no_grad` and the like.
    open_ended = all(key.startswith("*") or key in {"self", "fn"} for key in actual)
    for key, required in expected.items():
        if key not in actual:
            if not open_ended:
                yield f"{name}: no parameter {key!r} at run time, there are {list(actual)}"
        elif not required and actual[key] and not overloads:
            yield f"{name}: parameter {key!r} has no default at run time"
    if not open_ended:
        for key, required in actual.items():
            if required and key not in expected and not overloads:
                yield f"{name}: parameter {key!r} is missing from the stub"
        common = [key for key in expected if key in actual]
        if not overloads and common != [key for key in actual if key in expected]:
            yield f"{name}: order {list(expected)} differs from {list(actual)}"


def has_attribute(cls: type, name: str) -> bool:
    """Whether instances of a class have an attribute, as far as its source tells."""
    if hasattr(cls, name):
        return True
    for base in cls.__mro__:
        if name in getattr(base, "__annotations__", ()):
            return True
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == name
                and isinstance(node.ctx, ast.Store)
            ):
                return True
            if isinstance(node, ast.Constant) and node.value == name:
                return True  # set by name, as in setattr and deep_setattr
    return False


def is_overload(node: ast.FunctionDef) -> bool:
    """Whether a function is decorated with `overload`."""
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)


def check_class(name: str, node: ast.ClassDef, cls: object) -> Iterator[str]:
    """The differences in a class."""
    if not isinstance(cls, type):
        yield f"{name}: not a class at run time"
        return
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            full = f"{name}.{item.name}"
            if not has_attribute(cls, item.name):
                yield f"{full}: not there at run time"
                continue
            function = inspect.getattr_static(cls, item.name, None)
            if isinstance(function, (staticmethod, classmethod)):
                function = function.__func__
            if item.decorator_list and not callable(function):
                continue
            if callable(function):
                yield from compare(full, item, function, is_overload(item))
        elif (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and not has_attribute(cls, item.target.id)
        ):
            yield f"{name}.{item.target.id}: not there at run time"


def check_module(name: str, tree: ast.Module) -> Iterator[str]:
    """The differences in a module."""
    module = importlib.import_module(name)
    private = {
        n.targets[0].id
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    exported = {
        element.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id == "__all__" and isinstance(node.value, ast.List)
        for element in node.value.elts
        if isinstance(element, ast.Constant)
    }
    for missing in sorted(key for key in exported if not hasattr(module, str(key))):
        yield f"{name}.{missing}: exported, not there at run time"
    if "__all__" in private:
        public = {key for key in getattr(module, "__all__", exported) if not key.startswith("_")}
        for missing in sorted(public - exported):
            yield f"{name}.{missing}: exported at run time, not by the stub"
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            full = f"{name}.{node.name}"
            if hasattr(module, node.name):
                yield from check_class(full, node, getattr(module, node.name))
            else:
                yield f"{full}: not there at run time"
        elif isinstance(node, ast.FunctionDef):
            full = f"{name}.{node.name}"
            if hasattr(module, node.name):
                yield from compare(full, node, getattr(module, node.name), is_overload(node))
            else:
                yield f"{full}: not there at run time"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            alias = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
            if not alias and not hasattr(module, node.target.id):
                yield f"{name}.{node.target.id}: not there at run time"
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                if item.asname and not hasattr(module, item.asname):
                    yield f"{name}.{item.asname}: re-exported, not there at run time"


def main() -> int:
    """Print every difference that is not allowed."""
    found = [line for name, tree in modules() for line in check_module(name, tree)]
    errors = [line for line in found if not line.startswith(ALLOWED)]
    print("\n".join(errors) or "The stubs agree with the installed packages.")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
