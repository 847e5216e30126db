"""What the reference shows of the package: an extension for griffe, which reads the sources.

* A class has the signature that Python sees: attrs and NamedTuple write `__init__` at run time.
* ``$...$`` and ``$$...$$`` become MathML, which browsers show without a script.
* ``SVI``, ``SVI.run`` and ``apply()`` in double backticks become links, if they are public names.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import attrs
import griffe
from latex2mathml.converter import convert

MODULES = (
    "purepyro",
    "purepyro.random",
    "purepyro.infer",
    "purepyro.ensemble",
    "purepyro.distributed",
)
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


def public_names() -> dict[str, object]:
    """Every public object by its path, each once: under the module that is its home."""
    objects: dict[str, object] = {}
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            # `purepyro.Ensemble` is the short name of `purepyro.ensemble.Ensemble`.
            elsewhere = any(
                value is getattr(importlib.import_module(other), name, None)
                for other in MODULES
                if other != module and name in importlib.import_module(other).__all__
            )
            if not inspect.ismodule(value) and not (module == "purepyro" and elsewhere):
                objects[f"{module}.{name}"] = value
    return objects


def as_default(cls: type, parameter: inspect.Parameter) -> str | None:
    """The default as a user would write it."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return None
    if attrs.has(cls) and default is attrs.NOTHING:
        factory: Any = getattr(attrs.fields(cls), parameter.name).default
        made = factory.factory
        return {dict: "{}", tuple: "()", list: "[]"}.get(made, f"{made.__name__}()")
    if isinstance(default, Mapping):
        return "{}" if not default else repr(default)
    if inspect.isfunction(default):
        return default.__name__
    text = repr(default)
    return "constraints." + text[:-2].lower() if text == "Real()" else text


def annotation_of(
    owners: Iterator[griffe.Class], parameter: inspect.Parameter
) -> griffe.Expr | str | None:
    """The annotation of a field, with the names in it as links."""
    for owner in owners:
        member = owner.members.get(parameter.name)
        if isinstance(member, griffe.Attribute) and member.annotation is not None:
            return member.annotation
    given = parameter.annotation
    if given is inspect.Parameter.empty:
        return None
    text = getattr(given, "__forward_arg__", given)
    return str(text).strip("'")


def spelt_out(annotation: griffe.Expr | str | None, cls: type) -> griffe.Expr | str | None:
    """An alias of a few words, as these words."""
    for base in cls.__mro__:
        alias = vars(sys.modules[base.__module__]).get(str(annotation))
        if get_origin(alias) is Literal:
            return f"Literal[{', '.join(map(repr, get_args(alias)))}]"
    return annotation


class PublicApi(griffe.Extension):
    """Mends what griffe cannot know from the text of the sources."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called once all modules are read."""
        if pkg.path != "purepyro":
            return
        objects = public_names()
        targets = link_targets(objects)
        for path, value in objects.items():
            try:
                shown = pkg[path.removeprefix("purepyro.")]
            except KeyError:
                continue
            target = shown.final_target if isinstance(shown, griffe.Alias) else shown
            if isinstance(value, type) and isinstance(target, griffe.Class):
                add_signature(value, target, pkg)
            if isinstance(target, griffe.Function):
                for parameter in target.parameters:
                    if str(parameter.default).endswith("NOTHING"):  # attrs: none
                        parameter.default = "..."
            mend_docstrings(target, path, targets)


def add_signature(cls: type, shown: griffe.Class, package: griffe.Module) -> None:
    """Give a class the parameters that `inspect.signature` finds."""
    if "__init__" in shown.members or issubclass(cls, BaseException):
        return
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return
    if list(signature.parameters) == ["args", "kwargs"] or not signature.parameters:
        return

    def owners() -> Iterator[griffe.Class]:
        for base in cls.__mro__:
            if base.__module__.startswith("purepyro"):
                found = package[f"{base.__module__}.{base.__name__}".removeprefix("purepyro.")]
                if isinstance(found, griffe.Class):
                    yield found

    parameters = [
        griffe.Parameter(
            parameter.name,
            annotation=spelt_out(annotation_of(owners(), parameter), cls),
            kind=KINDS[parameter.kind],
            default=as_default(cls, parameter),
        )
        for parameter in signature.parameters.values()
    ]
    shown.set_member(
        "__init__",
        griffe.Function(
            "__init__",
            parameters=griffe.Parameters(
                griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
                *parameters,
            ),
        ),
    )


def link_targets(objects: Mapping[str, object]) -> dict[str, str]:
    """The path behind each text that can stand in double backticks: `SVI`, `SVI.run`, `apply()`."""
    targets: dict[str, str] = {}
    for path, value in objects.items():
        name = path.rsplit(".", 1)[1]
        if isinstance(value, type):
            for text in (name, f"{name}()", path):
                targets.setdefault(text, path)
            for method, member in vars(value).items():
                if not method.startswith("_") and callable(member) and member.__doc__:
                    for text in (f"{name}.{method}", f"{name}.{method}()"):
                        targets.setdefault(text, f"{path}.{method}")
        else:
            for text in (f"{name}()", path, f"{path}()"):
                targets.setdefault(text, path)
            if name[0].isupper():
                targets.setdefault(name, path)
    return targets


def mend_docstrings(obj: griffe.Object, path: str, targets: Mapping[str, str]) -> None:
    """Links and formulas in the docstring of an object and of its members."""
    if obj.docstring is not None:
        own = {
            text.removeprefix(f"{path.rsplit('.', 1)[1]}."): target
            for text, target in targets.items()
            if target.startswith(f"{path}.") and text.endswith("()")
        }
        obj.docstring.value = with_formulas(
            with_links(obj.docstring.value, {**targets, **own}.get, path)
        )
    if isinstance(obj, griffe.Class):
        for member in obj.members.values():
            if isinstance(member, griffe.Function | griffe.Attribute) and member.docstring:
                siblings = {f"{name}()": f"{path}.{name}" for name in obj.members if name[0] != "_"}
                text = with_links(
                    member.docstring.value, {**targets, **siblings}.get, f"{path}.{member.name}"
                )
                member.docstring.value = with_formulas(text)


def with_links(text: str, find: Callable[[str], str | None], here: str) -> str:
    """Double backticks around a public name, as a link to it; not in examples, not to itself."""

    def link(match: re.Match[str]) -> str:
        target = find(match[1])
        return match[0] if target is None or target == here else f"[`{match[1]}`][{target}]"

    lines = text.split("\n")
    return "\n".join(
        line if line.lstrip().startswith((">>>", "...")) else re.sub(r"``([\w.()]+)``", link, line)
        for line in lines
    )


def with_formulas(text: str) -> str:
    """TeX between dollars, as MathML."""

    def block(match: re.Match[str]) -> str:
        formula = " ".join(match[2].split())
        return f"{match[1]}<div>{convert(formula, display='block')}</div>"

    text = re.sub(r"^( *)\$\$(.+?)\$\$", block, text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(
        r"(?<![`$\w])\$([^$`]+)\$(?![\w$])", lambda match: convert(" ".join(match[1].split())), text
    )
