from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.runtime import Message

def is_sample_site(msg: Message, *, include_deterministic: bool = False) -> bool: ...
def get_dependencies(
    model: Callable[..., object],
    model_args: tuple[Any, ...] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    include_deterministic: bool = False,
) -> dict[str, Any]: ...
def get_model_relations(
    model: Callable[..., object],
    model_args: tuple[Any, ...] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    include_deterministic: bool = False,
) -> dict[str, Any]: ...
def render_model(
    model: Callable[..., object],
    model_args: tuple[Any, ...] | list[tuple[Any, ...]] | None = None,
    model_kwargs: Mapping[str, Any] | list[Mapping[str, Any]] | None = None,
    filename: str | None = None,
    render_distributions: bool = False,
    render_params: bool = False,
    render_deterministic: bool = False,
) -> Any: ...
