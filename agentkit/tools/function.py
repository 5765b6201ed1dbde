"""From a function and its docstring to a JSON Schema and an argument validator.

The schema is what the author would write by hand: a property for each parameter,
no titles, no definitions that are used only once. pydantic compiles
one validator per function, at its first use; decoration only reads the signature.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import pydantic
from pydantic import ConfigDict, GetCoreSchemaHandler, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, SchemaError, core_schema, to_jsonable_python

from agentkit.messages import JsonObject
from agentkit.schema.walk import subschemas, tidied
from agentkit.tools.annotations import OfferedSchema, accepted, fields, unpacked, validator_of
from agentkit.tools.docstrings import Docstring
from agentkit.tools.render import alias_of
from agentkit.tools.signature import (
    EMPTY,
    STARS,
    Signature,
    describe,
    parameters_of,
    refused,
)
from agentkit.tools.validation import TypeChecker

_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_CLASSES_READ = 16  # Python before 3.13 parses a whole module for each class's docstrings


class FunctionSchema:
    """The schema and the checker of a tool's arguments, from a function's types and docstring."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    @property
    def description(self) -> str:
        """The docstring without its parameters."""
        return self.signature.docstring.description

    @property
    def warnings(self) -> tuple[str, ...]:
        """The parameters that the model does not see, because their types have no JSON form."""
        return self._built.warnings

    @property
    def misdocumented(self) -> tuple[str, ...]:
        """Where the docstring describes a parameter that the function does not have."""
        function = self.signature.function
        # What a partial has bound, and a wrapper passes on, is still in the docstring.
        parameters = [*self.signature.parameters, *parameters_of(function)]
        if inspect.isclass(function) or any(p.kind is _VAR_KEYWORD for p in parameters):
            return ()
        known = {p.name for p in parameters}
        offered = [p.name for p in self.signature.parameters]
        return tuple(
            f"The docstring describes {name!r}, which is no parameter. "
            + (
                f"Did you mean {close[0]!r}?"
                if (close := get_close_matches(name, offered))
                else f"The parameters are: {', '.join(offered) or 'none'}."
            )
            for name in self.signature.docstring.parameters
            if name.isidentifier() and name not in {*known, *self.keys.values(), "None", "self"}
        )

    @property
    def checker(self) -> TypeChecker:
        """The checker of arguments; its values are for `bind`.

        Raises:
            InvalidTool: A type has no JSON form, or does not exist.
        """
        return self._built.checker

    @property
    def keys(self) -> Mapping[str, str]:
        """The names by which the model knows the parameters."""
        return self._built.keys

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the defaults of what the model may send and did not."""
        missing = self._built.defaults.items()
        if not missing:
            return dict(values)
        return {**values, **{key: make() for key, make in missing if key not in values}}

    @functools.cached_property
    def _built(self) -> _Built:
        visible = [p for p in self.signature.parameters if p.name not in self.signature.injected]
        warnings: list[str] = []
        try:
            properties = [_property(p) for p in visible]
            adapter, schema = _compiled(properties)
        except Exception:  # a type is arbitrary code
            properties, warnings = self._possible(visible)
            adapter, schema = self._together(properties)
        schema = tidied(schema)
        for one in properties:
            if one.key in schema["properties"]:
                one.describe(schema["properties"][one.key], self.signature.docstring)
        checker = TypeChecker(validator_of(adapter), schema)
        return _Built(
            checker=checker,
            warnings=tuple(warnings),
            keys={one.parameter.name: one.key for one in properties},
            defaults={one.key: one.make for one in properties if one.make is not None},
        )

    def _possible(
        self, parameters: Sequence[inspect.Parameter]
    ) -> tuple[list[_Property], list[str]]:
        """Drop parameters without a JSON form that have a default; refuse those that have none."""
        kept: list[_Property] = []
        warnings: list[str] = []
        for one in parameters:
            try:
                _compiled([_property(one)])
            except Exception as error:
                reason = _reason(error, one.annotation)
                needed = one.default is EMPTY or isinstance(one.default, FieldInfo)
                if needed and one.kind not in STARS:
                    function = self.signature.function
                    raise refused(
                        function,
                        f"Parameter {one.name!r} of {describe(function)} cannot come from a model: "
                        f"{reason}. Give it a type with a JSON form, or a default, which hides it "
                        "from the model.",
                    ) from error
                warnings.append(f"The model does not see parameter {one.name!r}: {reason}.")
            else:
                kept.append(_property(one))
        return kept, warnings

    def _together(self, properties: Sequence[_Property]) -> tuple[TypeAdapter[Any], JsonObject]:
        try:
            return _compiled(properties)
        except Exception as error:  # each of them can be compiled alone
            function = self.signature.function
            text = f"{describe(function)} cannot be a tool: {_reason(error, 'of a parameter')}. "
            raise refused(function, text + "Wrap it in a function with other types.") from error


def _reason(error: Exception, hint: Any) -> str:
    """Say why a type has no schema, without what pydantic says of our own adapter."""
    if isinstance(error, PydanticUserError) and error.code == "class-not-fully-defined":
        return f"its type {hint!r} refers to a type that is not defined"
    if isinstance(error, SchemaError):
        return f"pydantic cannot validate its type {hint!r}"
    return re.split(r"\n|\. Set `arbitrary", str(error))[0].rstrip(".")


# One parameter


@dataclass(frozen=True, kw_only=True, slots=True)
class _Property:
    """A parameter as the model sees it."""

    parameter: inspect.Parameter
    key: str  # the parameter's name, or its alias
    type: Any  # what pydantic validates
    required: bool = False
    default: Any = EMPTY  # as the model sees it
    make: Callable[[], Any] | None = None  # the default
    text: str | None = None  # a description that goes before the docstring's

    def describe(self, schema: JsonObject, docstring: Docstring) -> None:
        """Add description and default to the property's schema."""
        text = self.text or docstring.parameters.get(self.parameter.name)
        if text:
            schema["description"] = text
        default = _json_default(self.default)
        if default is not EMPTY and not (default is None and not _takes_null(schema)):
            schema["default"] = default


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """The parts that are compiled at first use."""

    checker: TypeChecker
    warnings: tuple[str, ...]
    keys: Mapping[str, str]
    defaults: Mapping[str, Callable[[], Any]]


def _property(parameter: inspect.Parameter) -> _Property:
    if isinstance(parameter.annotation, TypeError):
        raise parameter.annotation
    name, hint, default = parameter.name, accepted(parameter.annotation), parameter.default
    if parameter.kind in STARS:
        taken = hint if parameter.kind is _VAR_KEYWORD else unpacked(hint) or list[hint]
        return _Property(parameter=parameter, key=name, type=taken)
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    if isinstance(default, FieldInfo) or any(isinstance(one, FieldInfo) for one in metadata):
        return _with_field(parameter, hint, default)
    texts = [
        one if isinstance(one, str) else getattr(one, "documentation", None) for one in metadata
    ]
    return _Property(
        parameter=parameter,
        key=name,
        type=hint,
        required=default is EMPTY,
        default=default,
        make=None if default is EMPTY else lambda: default,
        text=next((text for text in texts if isinstance(text, str)), None),
    )


def _with_field(parameter: inspect.Parameter, hint: Any, default: Any) -> _Property:
    """Describe a parameter with pydantic's `Field(…)`, as its default or in its `Annotated`."""
    if default is EMPTY:
        field = FieldInfo.from_annotation(hint)
    else:
        field = FieldInfo.from_annotated_attribute(hint, default)
    # We apply the default and the alias; the rest of the field stays with its type.
    kept = {
        key: value
        for key in ("title", "description", "examples", "discriminator", "json_schema_extra")
        if (value := getattr(field, key)) is not None
    }
    metadata = (*field.metadata, *([pydantic.Field(**kept)] if kept else ()))
    required = field.is_required()
    of_field = default is EMPTY or isinstance(default, FieldInfo)
    make = functools.partial(field.get_default, call_default_factory=True, validated_data={})
    return _Property(
        parameter=parameter,
        key=alias_of(field) or parameter.name,
        type=typing.Annotated[(field.annotation, *metadata)] if metadata else field.annotation,
        required=required,
        default=EMPTY if required or field.default_factory is not None else field.default,
        make=None if required else make if of_field else lambda: default,
        text=field.description,
    )


def _json_default(value: Any) -> Any:
    """Return the default as JSON, or EMPTY where it has no JSON form."""
    try:
        default = to_jsonable_python(value)
        if isinstance(value, (set, frozenset)):
            default.sort(key=json.dumps)  # else the schema differs from run to run
        json.dumps(default, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return EMPTY
    return default


def _takes_null(schema: JsonObject) -> bool:
    if "anyOf" in schema:
        return any(map(_takes_null, schema["anyOf"]))
    return (
        not schema.keys() & {"type", "enum", "const", "$ref"}
        or schema.get("type") == "null"
        or None in schema.get("enum", ())
    )


# All parameters


class _Object:
    """The arguments of a function as one object, compiled by pydantic."""

    def __init__(self, properties: Sequence[_Property]) -> None:
        self._properties = properties

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        keys: dict[str, core_schema.TypedDictField] = {}
        extras: CoreSchema | None = None
        for one in self._properties:
            if one.parameter.kind is not _VAR_KEYWORD:
                types = {one.key: (one.type, one.required)}
            elif (keywords := unpacked(one.type)) is not None:
                types = fields(keywords)
            else:
                types = {}
                extras = handler.generate_schema(one.type)
            for name, (hint, required) in types.items():
                inner = handler.generate_schema(hint)
                keys[name] = core_schema.typed_dict_field(inner, required=required)
        if extras is None:
            return core_schema.typed_dict_schema(keys, extra_behavior="forbid")
        return core_schema.typed_dict_schema(keys, extra_behavior="allow", extras_schema=extras)


class _Generator(OfferedSchema):
    """A JSON Schema generator that leaves out what nobody writes by hand."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  theirs

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: no titles made of the names of fields."""
        return False

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonObject:
        """Give the string a pattern."""
        shown = super().decimal_schema(schema)
        for one in shown.get("anyOf", ()):
            if one == {"type": "string"}:
                one["pattern"] = r"^-?\d+(\.\d+)?$"
        return shown


def _compiled(properties: Sequence[_Property]) -> tuple[TypeAdapter[Any], JsonObject]:
    adapter, schema = _adapted(properties, attribute_docstrings=False)
    if 0 < len(schema.get("$defs", ())) <= _CLASSES_READ:
        adapter, schema = _adapted(properties, attribute_docstrings=True)
    if any(one.get("anyOf") == [] for one in subschemas(schema)):
        raise TypeError("no member of its union has a JSON form")
    return adapter, schema


def _adapted(
    properties: Sequence[_Property], *, attribute_docstrings: bool
) -> tuple[TypeAdapter[Any], JsonObject]:
    config = ConfigDict(
        use_attribute_docstrings=attribute_docstrings,
        # Unknown keys are refused in dataclasses and typed dicts too: a misspelt
        # optional one would be dropped silently.
        extra="forbid",
    )
    adapter: TypeAdapter[Any] = TypeAdapter(
        typing.Annotated[dict[str, Any], _Object(properties)], config=config
    )
    return adapter, adapter.json_schema(schema_generator=_Generator)
