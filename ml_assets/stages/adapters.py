"""Dataclasses out of what JSON holds.

Belongs here: that the reader of a kind is made once. Does not: what a kind holds.
"""

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

Kind = TypeVar("Kind")


def adapter_of(kind: type[Kind]) -> TypeAdapter[Kind]:
    """Made once for each kind: to make it takes longer than to read with it, and an overview reads every report of a case."""
    return _made(cast("Hashable", kind))


@cache
def _made(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
