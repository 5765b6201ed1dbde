"""A typed output while it is still being written.

The text so far is read each time that it has grown by a tenth, so that reading it
again and again costs a constant factor over reading it once.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

__all__ = ["PartialOutput"]

_LEAST = 16
"""Characters that have to be new before the text is read again."""


class PartialOutput:
    """Reads the beginning of a JSON text as the beginning of an output.

    Args:
        output: The output type.
        bare: The output stands as `value` in an object, because it is none itself.
    """

    def __init__(self, output: Any, *, bare: bool) -> None:
        self._bare = bare
        fields = {"value": output} if bare else _fields(output)
        # Made at run time, which the type of TypedDict does not foresee.
        shape = cast("Any", TypedDict)("Partial", fields, total=False) if fields else output
        self._adapter: TypeAdapter[Any] = TypeAdapter(shape)
        self._text = ""
        self._read = 0
        self._last: Any = None

    def feed(self, piece: str) -> Any:
        """Take a piece of text.

        Returns:
            What is there so far, validated: the fields by name, without those that have
            not begun, or for other types the value itself. None if nothing new can be said.
        """
        self._text += piece
        if len(self._text) < max(self._read * 1.1, self._read + _LEAST):
            return None
        self._read = len(self._text)
        try:
            value = self._adapter.validate_json(
                self._text, experimental_allow_partial="trailing-strings"
            )
        except ValidationError:
            return None
        value = value.get("value") if self._bare else value
        if value is None or value == self._last:
            return None
        self._last = value
        return value


def _fields(output: Any) -> dict[str, Any] | None:
    """The fields of a class with fields: of these, pydantic can validate some without others."""
    if not isinstance(output, type):
        return None
    cls = cast("Any", output)
    if issubclass(output, BaseModel):
        return {_alias(field) or name: field.annotation for name, field in cls.model_fields.items()}
    hints = get_type_hints(cls)
    if hasattr(cls, "__dataclass_fields__"):  # class variables have hints too, and are no fields
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return hints or None


def _alias(field: FieldInfo) -> str | None:
    return field.validation_alias if isinstance(field.validation_alias, str) else field.alias
