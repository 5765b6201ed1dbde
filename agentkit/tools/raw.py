"""Tools from a raw JSON Schema, written by hand or by another program."""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agentkit.errors import InvalidTool
from agentkit.messages import JsonObject, is_object
from agentkit.schema.walk import at, mapped, subschemas
from agentkit.tools.signature import EMPTY, STARS, Signature, describe
from agentkit.tools.validation import RAW_TYPE, Checker, Path, Problem, is_left_out, unknown_name

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
    misdocumented: tuple[str, ...] = ()
    keys: Mapping[str, str] = {}

    def __init__(self, name: str, schema: JsonObject, signature: Signature) -> None:
        if not is_object(schema):
            raise _invalid(name, f"is a {type(schema).__name__}, not an object")
        validator = compiled(name, schema)
        if schema.get("type", "object") != "object":
            raise _invalid(name, f"has type {schema['type']!r}, not 'object'")
        schema = _of_object(schema)
        self.signature = signature
        parameters = signature.parameters
        takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        properties, required = {*schema.get("properties", ())}, {*schema.get("required", ())}
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
        json.dumps(schema, allow_nan=False)  # sent like this; jsonschema_rs takes NaN
        schema = mapped(schema, _escaped)
        jsonschema_rs.meta.validate(schema)
        return jsonschema_rs.validator_for(schema, mask="it", offline=True)
    except jsonschema_rs.ValidationError as error:
        place, reason = pointer(error.instance_path), error.message
        if error.kind.as_dict().get("format") == "regex":
            reason = f"{error.instance!r} is not a valid regular expression"
        raise _invalid(name, f"is not valid at {place}: {reason}") from error
    except (jsonschema_rs.ReferencingError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise _invalid(name, f"is not valid: {reason}") from error


_BRACES = re.compile(
    r"(\\[pPukx]\{[^{}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|\{\d+(?:,\d*)?\})|[{}]", re.DOTALL
)


def _escaped(schema: JsonObject) -> JsonObject:
    """Escape braces that stand for themselves: Python and JavaScript allow them, drafts do not."""
    if "pattern" in schema:
        schema["pattern"] = _braces_escaped(schema["pattern"])
    if is_object(named := schema.get("patternProperties")):
        schema["patternProperties"] = {_braces_escaped(key): named[key] for key in named}
    return schema


def _braces_escaped(pattern: Any) -> Any:
    if not isinstance(pattern, str):
        return pattern
    return _BRACES.sub(lambda match: match[1] or "\\" + match[0], pattern)


def _of_object(schema: JsonObject) -> JsonObject:
    """Return the schema with `type: object`, which servers want at the root.

    References to the root keep their meaning: they refer to a copy without it.
    """
    if "type" not in schema and any(one.get("$ref") == "#" for one in subschemas(schema)):
        defs = schema.get("$defs", {})
        name = next(name for n in itertools.count() if (name := f"root{n or ''}") not in defs)
        ref = {"$ref": f"#/$defs/{name}"}
        schema = mapped(schema, lambda one: one | ref if one.get("$ref") == "#" else one)
        copy = {key: schema[key] for key in schema if key not in ("$defs", "$schema", "$id")}
        schema["$defs"] = {**schema.get("$defs", {}), name: copy}
    combines = schema.keys() & {"$ref", "allOf", "anyOf", "oneOf"}
    return {"type": "object", **({} if combines else {"properties": {}}), **schema}


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
            for problem in _problems(error, data, self.schema)
        ]
        if self._closed:
            names = list(self.schema.get("properties", ()))
            problems += [_unknown((key,), names) for key in data if key not in names]
        return problems or data


def _problems(
    error: jsonschema_rs.ValidationError, data: JsonObject, schema: JsonObject
) -> Iterator[Problem]:
    path, kind, detail = _path(error, data), error.kind.name, error.kind.as_dict()
    value, text = error.instance, error.message
    match kind:
        case "anyOf" | "oneOf" if any(detail.get("context") or ()):
            branches = [
                [one for inner in branch for one in _problems(inner, data, schema)]
                for branch in detail["context"]
            ]
            # Only the nulls of one branch are left out: another may need those of its own.
            nulls = [one for one in branches if one and all(is_left_out(p, schema) for p in one)]
            for branch in nulls[:1] or branches:
                yield from branch
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


def _path(error: jsonschema_rs.ValidationError, data: Any) -> Path:
    """Return the place of a problem; jsonschema_rs takes a key such as "1" or "01" for an index."""
    path: list[Any] = []
    for step in error.instance_path:
        key: Any = step
        if is_object(data) and isinstance(step, int):
            same = (name for name in data if name.isdecimal() and int(name) == step)
            key = str(step) if str(step) in data else next(same)
        path.append(key)
        data = data[key]
    return tuple(path)


def _unknown(path: Path, names: list[str]) -> Problem:
    text = unknown_name(str(path[-1]), names)
    return Problem(path=path, where=pointer(path), text=text, value=...)


def pointer(path: Iterable[int | str]) -> str:
    """Return the JSON pointer of a place; `/` for the whole value."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path) or "/"
