"""Settings of a run: one frozen object, validated when made, to and from JSON.

The training notebook's settings cell makes it, ``run.json`` keeps it, inference reads it back, so
nothing is typed twice. A setting can be changed from outside a notebook through the environment:

    KERNEL_LIB_SETTINGS='{"epochs": 1, "folds": [0]}'

A task adds its own settings in a subclass (``kernel_lib.tasks``).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import types
import typing
from typing import Any, Self

from kernel_lib.errors import SettingsError

OVERRIDES_VARIABLE = "KERNEL_LIB_SETTINGS"


def setting(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    changes_result: bool = True,
) -> Any:
    """A dataclass field with the bounds its value must keep.

    Args:
        default: value when the user says nothing.
        at_least, above, at_most, below: inclusive and exclusive bounds of a number.
        choices: the allowed words of a string.
        changes_result: False for settings that only say where or how long, so that a run may be
            resumed with another value of them.
    """
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    return dataclasses.field(
        default=default,
        metadata={
            "bounds": {word: bound for word, bound in bounds.items() if bound is not None},
            "choices": choices,
            "changes_result": changes_result,
        },
    )


_KEEPS_BOUND = {
    "at least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "at most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: validation, JSON, overrides."""

    def __new__(cls, **values: Any) -> Self:
        """Refuses an unknown name, as :meth:`replace` does, where Python would only say no."""
        _refuse_unknown(values, cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _coerced(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            _check_range(field, value)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed. Raises SettingsError for an unknown name."""
        _refuse_unknown(changes, type(self))
        return dataclasses.replace(self, **changes)

    def overridden(self) -> Self:
        """A copy with the changes that the environment variable KERNEL_LIB_SETTINGS asks for.

        Prints each change as ``name: old -> new``. Raises SettingsError when the variable is not
        a JSON object or names an unknown setting.
        """
        text = os.environ.get(OVERRIDES_VARIABLE, "").strip()
        if not text:
            return self
        try:
            changes = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"{OVERRIDES_VARIABLE} is not JSON ({error}): {text!r}. "
                "Write it as '{\"epochs\": 1}'."
            ) from None
        if not isinstance(changes, dict):
            raise SettingsError(f"{OVERRIDES_VARIABLE} must hold a JSON object, found {text!r}.")
        changed = self.replace(**changes)
        for name in changes:
            print(f"setting {name}: {getattr(self, name)!r} -> {getattr(changed, name)!r}")
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from ``to_dict``'s result. Raises SettingsError for an unknown name."""
        _refuse_unknown(values, cls)
        return cls(**values)

    def result_values(self) -> dict[str, Any]:
        """The settings that change what is computed, ready for JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["changes_result"]
        }


def digest(values: Any) -> str:
    """Short, stable hash of anything JSON can hold: 16 hexadecimal digits."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def nearest(name: str, known: list[str]) -> str:
    """The hint of an error about an unknown name: the closest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}."


def _refuse_unknown(values: dict[str, Any], cls: type[Settings]) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise SettingsError(
                f"unknown setting {name!r} of {cls.__name__}: {nearest(name, known)}"
            )


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """The value in its declared type: JSON's lists become tuples, whole numbers floats."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            item_hint = typing.get_args(hint)[0]
            return tuple(_coerced(name, item, item_hint) for item in value)
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{name}={value!r} is {type(value).__name__}; it must be {wanted}.")


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    for word, bound in field.metadata["bounds"].items():
        if not _KEEPS_BOUND[word](value, bound):
            raise SettingsError(f"{field.name}={value!r} must be {word} {bound}.")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise SettingsError(
            f"{field.name}={value!r} is not known: {nearest(value, list(choices))} "
            f"It can be {', '.join(choices)}."
        )
