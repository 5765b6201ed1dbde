"""Typed output while the model is still writing it.

The text so far is parsed each time it has grown by a tenth, so that parsing it
repeatedly costs a constant factor over parsing it once.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

_LEAST = 16
"""New characters before the text is parsed again."""


class PartialOutput:
    """The output that the beginning of a JSON text holds.

    Args:
        output: The output type.
        wrapped: The output is the property `value` of an object.
    """

    def __init__(self, output: Any, *, wrapped: bool) -> None:
        self._wrapped = wrapped
        fields = {"value": output} if wrapped else _fields(output)
        # TypedDict's own type does not foresee classes made at run time.
        shape = cast("Any", TypedDict)("Partial", fields, total=False) if fields else output
        self._adapter: TypeAdapter[Any] = TypeAdapter(shape)
        self._text = ""
        self._read = 0
        self._last: Any = None

    def feed(self, piece: str) -> Any:
        """Take a piece of text.

        Returns:
            The output so far as JSON data, each field validated: of an object the fields by
            name, without those that have not begun. None if there is nothing new.
        """
        self._text += piece
        if len(self._text) < max(self._read * 1.1, self._read + _LEAST):
            return None
        self._read = len(self._text)
        _, brace, rest = self._text.partition("{")  # a model may write a fence before it
        try:
            validated = self._adapter.validate_json(
                brace + rest, experimental_allow_partial="trailing-strings"
            )
        except ValidationError:
            return None
        value = self._adapter.dump_python(validated, mode="json", by_alias=True, warnings=False)
        value = value.get("value") if self._wrapped else value
        if value is None or value == self._last:
            return None
        self._last = value
        return value


def _fields(output: Any) -> dict[str, Any] | None:
    """Return the fields of a class that has fields: pydantic can validate some without others."""
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
