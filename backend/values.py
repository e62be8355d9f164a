"""Values, as frozen dataclasses are, for what a start of a container loads.

``dataclasses`` takes 10 ms to import and writes and compiles source text for each class;
a start of a container has 60 ms for everything.  To a type checker these are dataclasses.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, TypeVar, dataclass_transform

    V = TypeVar("V", bound="Value")
else:

    def dataclass_transform(**_rules: bool) -> Callable[[type], type]:
        """Stand in for the mark that only a type checker reads."""
        return lambda base: base


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value:
    """Base of classes whose annotated names are fields, given by keyword.

    A field with a value in the class body need not be given; the value must not be one that
    can change.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = (*cls._fields, *cls.__annotations__)

    def __init__(self, **given: object) -> None:
        fields = self._fields
        if wrong := [name for name in given if name not in fields]:
            raise TypeError(f"{type(self).__name__} has no {', '.join(wrong)}")
        if len(given) < len(fields):
            missing = [name for name in fields if name not in given and not hasattr(self, name)]
            if missing:
                raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._fields))

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def replace(value: V, **changes: object) -> V:
    """Return a copy of a value with some fields changed.

    Raises:
        TypeError: It has no such field.
    """
    return type(value)(**{**value.__dict__, **changes})
