"""What an API may ask of its guard, as it is written in code and in the environment."""

from collections.abc import Iterable
from typing import Literal, get_args

OnStale = Literal["introspect", "allow", "refuse"]


def require_on_stale(on_stale: str) -> None:
    """Raises ValueError unless *on_stale* is one of `introspect`, `allow`, `refuse`."""
    if on_stale not in get_args(OnStale):
        raise ValueError(f"on_stale is {either(get_args(OnStale))}")


def names_in(text: str) -> list[str]:
    """The names in *text*, of scopes, plans or roles, separated by spaces or commas."""
    return text.replace(",", " ").split()


def either(names: Iterable[str]) -> str:
    """*names* as a sentence has them."""
    return " or ".join(repr(name) for name in sorted(names))
