"""Tools from a raw JSON Schema, written by hand or by another program."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agentkit.errors import InvalidTool
from agentkit.messages import JsonObject, is_object
from agentkit.schema.walk import at
from agentkit.tools.signature import EMPTY, STARS, Signature, describe
from agentkit.tools.validation import RAW_TYPE, Checker, Problem, unknown_name

if TYPE_CHECKING:
    import jsonschema_rs


class RawSchema:
    """As `FunctionSchema`, from a JSON Schema; the function takes its properties by keyword.

    `$schema` selects the draft: 2020-12 (default), 2019-09, 7, 6 or 4.
    References outside the schema are not followed: nothing is fetched.

    Args:
        name: The tool's name, for errors.
        schema: A JSON Schema of an object.
        signature: Of the function. Only the annotation of the context is read.

    Raises:
        InvalidTool: The schema is not valid, or the function does not take its properties.
    """

    description = ""
    warnings: tuple[str, ...] = ()
    keys: Mapping[str, str] = {}

    def __init__(self, name: str, schema: JsonObject, signature: Signature) -> None:
        if not is_object(schema):
            raise _invalid(name, f"is a {type(schema).__name__}, not an object")
        schema = {"type": "object", "properties": {}, **schema}
        if schema["type"] != "object":
            raise _invalid(name, f"has type {schema['type']!r}, not 'object'")
        self.signature = signature
        parameters = signature.parameters
        takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        properties, required = {*schema["properties"]}, {*schema.get("required", ())}
        plain = [p for p in parameters if p.kind not in STARS]
        hidden = {p.name for p in plain} & signature.injected
        known = {p.name for p in plain} - hidden
        needed = {p.name for p in plain if p.default is EMPTY} - hidden
        untaken: set[str] = set() if takes_more else properties - known
        mismatches = (
            ("has", properties & hidden, "takes from the run"),
            ("has", untaken, "does not take"),
            ("does not require", needed - required, "needs"),
        )
        for verb, names, clause in mismatches:
            if names:
                listed = ", ".join(map(repr, sorted(names)))
                function = describe(signature.function)
                raise _invalid(name, f"{verb} {listed}, which {function} {clause}")
        validator = compiled(name, schema)
        self.checker: Checker = RawChecker(validator, schema, closed=not takes_more)

        self._defaults = {p.name: p.default for p in plain if p.name in properties - needed}

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the function's defaults of properties that the model did not send."""
        return {**values, **{key: v for key, v in self._defaults.items() if key not in values}}


_DRAFTS = re.compile(
    r"https?://json-schema\.org/(draft/2020-12|draft/2019-09|draft-0[467])/schema#?"
)


def compiled(name: str, schema: JsonObject) -> jsonschema_rs.Validator:
    """Compile a validator for a schema.

    Raises:
        InvalidTool: The schema is not valid.
    """
    import jsonschema_rs  # a native library that most programs never need

    if not is_object(schema):
        raise _invalid(name, f"is a {type(schema).__name__}, not an object")
    draft = schema.get("$schema")
    if draft is not None and not _DRAFTS.fullmatch(str(draft)):
        supported = "2020-12, 2019-09, 7, 6 and 4"
        raise _invalid(name, f"has the unknown draft {draft!r}; supported are {supported}")
    try:
        jsonschema_rs.meta.validate(schema)
        return jsonschema_rs.validator_for(schema, mask="it", offline=True)
    except jsonschema_rs.ValidationError as error:
        place = pointer(error.instance_path)
        raise _invalid(name, f"is not valid at {place}: {error.message}") from error
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _invalid(name, f"is not valid: {reason}") from error


def _invalid(name: str, problem: str) -> InvalidTool:
    return InvalidTool(f"The schema of tool {name!r} {problem}.", tool=name)


class RawChecker:
    """A checker for a JSON Schema, which returns valid arguments unchanged."""

    def __init__(
        self, validator: jsonschema_rs.Validator, schema: JsonObject, *, closed: bool = False
    ) -> None:
        self.schema = schema
        self._validator = validator
        self._closed = closed

    def check(self, data: JsonObject, *, strict: bool) -> JsonObject | list[Problem]:
        """Check the arguments; see `Checker.check`. JSON pointers name the places."""
        problems = [
            problem
            for error in self._validator.iter_errors(data)
            for problem in _problems(error, self.schema)
        ]
        if self._closed:
            names = list(self.schema["properties"])
            problems += [_unknown((key,), names) for key in data if key not in names]
        return problems or data


def _problems(error: jsonschema_rs.ValidationError, schema: JsonObject) -> Iterator[Problem]:
    path, kind, detail = tuple(error.instance_path), error.kind.name, error.kind.as_dict()
    value, text = error.instance, error.message
    match kind:
        case "anyOf" | "oneOf" if any(detail.get("context") or ()):
            for branch in detail["context"]:
                for inner in branch:
                    yield from _problems(inner, schema)
            return
        case "additionalProperties":
            names = [name for one in at(schema, path) for name in one.get("properties", ())]
            for key in detail["unexpected"]:
                yield _unknown((*path, key), names)
            return
        case "required":
            path, value, text = (*path, detail["property"]), ..., "is required"
        case "type":
            types = detail.get("types") or [detail.get("type")]
            text = f"expected {' or '.join(map(str, types))}"
            kind = kind if "string" in types else RAW_TYPE
        case "enum":
            text = f"expected one of {', '.join(map(json.dumps, detail['options']))}"
        case "const":
            text = f"expected {json.dumps(detail['expected_value'])}"
        case _:
            pass
    yield Problem(path=path, where=pointer(path), text=text, value=value, kind=kind)


def _unknown(path: tuple[int | str, ...], names: list[str]) -> Problem:
    text = unknown_name(str(path[-1]), names)
    return Problem(path=path, where=pointer(path), text=text, value=...)


def pointer(path: Iterable[int | str]) -> str:
    """Return the JSON pointer of a place; `/` for the whole value."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path) or "/"
