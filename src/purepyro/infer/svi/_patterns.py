"""Parameters chosen by patterns such as ``scales.*``."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from ..._errors import UnknownNameError, near


@lru_cache(maxsize=256)
def chosen(patterns: tuple[str, ...], names: tuple[str, ...]) -> frozenset[str]:
    """The names that a pattern matches; ``*`` also matches dots."""
    return frozenset(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def require_matches(patterns: Iterable[str], names: Iterable[str], what: str) -> None:
    """Refuse patterns that match no parameter: a typo would go unnoticed."""
    known = tuple(names)
    for pattern in patterns:
        if not chosen((pattern,), known):
            raise UnknownNameError(
                f"{what} has the pattern {pattern!r}, which matches no parameter, so it would do "
                f"nothing. {near(pattern, known)} Patterns are globs over whole names, such as "
                "'scales.*'."
            )


def as_patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    """One pattern or several, as a tuple."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
