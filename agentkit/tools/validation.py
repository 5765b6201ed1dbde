"""Check arguments against a schema, and explain problems so that a model can fix them.

Valid values pass untouched. Values with only one meaning are converted, and the
conversion is noted: `"3"` for an integer, null for a property that is left out, an
object sent as text. Conversions that only pydantic would make are refused: true for
1, 5 for a date. A problem names the place and what was expected there, never the
value that was sent.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import ErrorDetails, SchemaValidator, to_json

from agentkit.errors import InvalidArguments
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.schema.repair import load_value
from agentkit.schema.walk import at, subschemas

Path = tuple[int | str, ...]
RAW_TYPE = "raw_type"
"""The kind of a problem where a raw JSON Schema expects another type than a string."""
_SHOWN = 10  # places in one message


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with the arguments."""

    path: Path
    where: str  # the path as the model reads it
    text: str  # what was expected there, without the value that was sent
    value: Any = None  # the value that was sent
    kind: str = ""  # the checker's name for it, such as `int_type`


class Checker(Protocol):
    """A check of arguments, against Python types or a raw JSON Schema."""

    schema: JsonObject
    """The JSON Schema of the arguments, not in its strict form."""

    def check(self, data: JsonObject, *, strict: bool) -> JsonObject | list[Problem]:
        """Return the validated values, or the problems; `strict` converts nothing."""
        ...


def fit(checker: Checker, data: JsonObject) -> tuple[JsonObject, tuple[str, ...]]:
    """Check arguments, and convert values with only one meaning.

    Returns:
        The validated values, and notes on conversions.

    Raises:
        InvalidArguments: They do not match the schema. The text is for the model.
    """
    notes: list[str] = []
    while isinstance(result := checker.check(data, strict=True), list):
        repaired, repairs = _repaired(data, result, checker.schema)
        if repaired is data:
            break
        notes += repairs
        data = repaired
    else:
        return result, tuple(notes)
    lax = checker.check(data, strict=False)
    problems = [problem for problem in result if _surprising(problem)]
    if isinstance(lax, list):
        places = {problem.where for problem in problems}
        problems += [problem for problem in lax if problem.where not in places]
    if problems or isinstance(lax, list):
        raise InvalidArguments("The JSON does not match the schema:\n" + _listed(problems))
    converted = ", ".join(dict.fromkeys(problem.where for problem in result))
    return lax, (*notes, f"converted to the expected type: {converted}")


def _surprising(problem: Problem) -> bool:
    """Tell whether pydantic would convert this although nobody expects it: "nan" for a number."""
    if isinstance(problem.value, str) and problem.kind.startswith("float"):
        with contextlib.suppress(ValueError):
            return not math.isfinite(float(problem.value))
    if isinstance(problem.value, bool):
        return not problem.kind.startswith(("bool", "literal", "enum"))
    return isinstance(problem.value, (int, float)) and problem.kind.startswith(("date", "time"))


# Repairs


def _repaired(
    data: JsonObject, problems: Iterable[Problem], schema: JsonObject
) -> tuple[JsonObject, list[str]]:
    """Leave out nulls of optional properties; decode arrays and objects that were sent as text."""
    repairs: list[str] = []
    for one in problems:
        if not one.path:
            continue
        if is_left_out(one, schema):
            data = _edited(data, one.path, ...)
        elif isinstance(one.value, str) and (value := _decoded(one)) is not None:
            data = _edited(data, one.path, value)
            repairs.append(f"a value sent as text: {one.where}")
    return data, repairs


def is_left_out(problem: Problem, schema: JsonObject) -> bool:
    """Tell whether the problem is the null of an optional property."""
    path = problem.path
    return (
        problem.value is None
        and path != ()
        and any(
            path[-1] in parent.get("properties", ()) and path[-1] not in parent.get("required", ())
            for parent in at(schema, path[:-1])
        )
    )


_CONTAINER = re.compile(
    "(list|tuple|set|frozen_set|deque|dict|mapping|model|dataclass|named_tuple)_"
)


def _decoded(problem: Problem) -> Any:
    """Decode a string that stands for an array, an object or another value that is no string."""
    array_or_object = problem.value.lstrip().startswith(("[", "{"))
    if problem.kind != RAW_TYPE and not (array_or_object and _CONTAINER.match(problem.kind)):
        return None
    try:
        value, repairs = load_value(problem.value)
    except InvalidArguments:
        return None
    return None if isinstance(value, str) or repairs else value


def _edited(data: Any, path: Path, new: Any) -> Any:
    """Return a copy of `data` with the value at `path` replaced, or left out if `new` is `...`."""
    copy: Any = dict(data) if is_object(data) else list(data)
    step = path[0]
    if len(path) > 1:
        copy[step] = _edited(copy[step], path[1:], new)
    elif new is ...:
        copy.pop(step, None)
    else:
        copy[step] = new
    return copy


# Python types


class TypeChecker:
    """A checker for Python types: a pydantic validator of the object of the arguments."""

    def __init__(self, validator: SchemaValidator, schema: JsonObject) -> None:
        self.schema = schema
        self._validator = validator
        formats = {str(one.get("format")) for one in subschemas(schema)}
        self._dated = any(one.startswith(("date", "time", "duration")) for one in formats)
        self._counted = any(value in (0, 1) for one in subschemas(schema) for value in _values(one))

    def check(self, data: JsonObject, *, strict: bool) -> JsonObject | list[Problem]:
        """Check the arguments; see `Checker.check`."""
        # Always the JSON that agentkit has read: pydantic's own parser reads some text otherwise.
        try:
            values = self._validator.validate_json(to_json(data), strict=strict or None)
        except ValidationError as error:
            return _problems(error, data, self.schema)
        return self._timestamps(data) or self._confused(data) or values

    def _confused(self, data: JsonObject) -> list[Problem]:
        """Find true for 1 and 1 for true: pydantic compares constants as Python does."""
        if not self._counted:
            return []
        problems: list[Problem] = []
        for path, value in _leaves(data, ()):
            if isinstance(value, (bool, int, float)) and value in (0, 1):
                schemas = at(self.schema, path)
                allowed = [one for schema in schemas for one in _values(schema)]
                same = [one for one in allowed if isinstance(one, bool) is isinstance(value, bool)]
                if value in allowed and value not in same and not _takes(schemas, value):
                    text = f"expected {' or '.join(map(json.dumps, allowed))}"
                    where = _where(path)
                    problems.append(Problem(path=path, where=where, text=text, value=value))
        return problems

    def _timestamps(self, data: JsonObject) -> list[Problem]:
        """Find dates made of digits only: pydantic takes "2024" for seconds since 1970."""
        if not self._dated or (changed := _without_digits(data)) == data:
            return []
        try:
            self._validator.validate_json(json.dumps(changed))
        except ValidationError as error:
            problems = _problems(error, changed, self.schema)
            return [one for one in problems if one.kind.startswith(("date", "time"))]
        except Exception:  # a validator of the user's, which never gets to see these values
            pass
        return []


def _without_digits(value: Any) -> Any:
    """Return a copy in which no string is only a number."""
    if is_array(value):
        return list(map(_without_digits, value))
    if is_object(value):
        return {key: _without_digits(item) for key, item in value.items()}
    digits = isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9.]+\s*", value)
    return "x" if digits else value


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Iterate over what is neither array nor object in a value, with the places."""
    if is_object(value):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif is_array(value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _values(schema: JsonObject) -> list[Any]:
    """Return the values that a schema lists; none where it describes any of a type."""
    return schema.get("enum", [schema["const"]] if "const" in schema else [])


def _takes(schemas: Sequence[JsonObject], value: Any) -> bool:
    """Tell whether one of the schemas takes any value of the type that `value` has."""
    kinds = {"boolean"} if isinstance(value, bool) else {"integer", "number"}
    types = [one.get("type", ()) for one in schemas if not _values(one)]
    return any(not kinds.isdisjoint(one if is_array(one) else [one]) for one in types)


def _where(path: Path) -> str:
    """Return a place as the model reads it."""
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return where.removeprefix(".") or "the whole value"


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def _problems(error: ValidationError, data: Any, schema: JsonObject) -> list[Problem]:
    return [_problem(detail, data, schema) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails, data: Any, schema: JsonObject) -> Problem:
    kind = detail["type"]
    path = _path(detail["loc"], data, absent=kind in _MISSING)
    if kind in _UNKNOWN:
        parents = at(schema, path[:-1])
        names = [name for parent in parents for name in parent.get("properties", ())]
        text = unknown_name(str(path[-1]), names)
    else:
        text = _expected(detail)
    return Problem(
        path=path,
        where=_where(path),
        text=text,
        # The input of a missing or unknown property is the object around it: nothing to repair.
        value=... if kind in (*_MISSING, *_UNKNOWN) else detail["input"],
        kind=kind,
    )


def _path(loc: Path, data: Any, *, absent: bool) -> Path:
    """Return the part of an error's location that leads through the data, without union tags."""
    path: list[int | str] = []
    for index, step in enumerate(loc):
        if (is_object(data) and step in data) or (
            is_array(data) and isinstance(step, int) and step < len(data)
        ):
            inner: Any = data
            data = inner[step]
            path.append(step)
        elif absent and index == len(loc) - 1:
            path.append(step)
    return tuple(path)


# Messages

_EXPECTED = {
    "datetime": "expected a date and time such as 2026-01-31T09:30:00Z",
    "date": "expected a date such as 2026-01-31",
    "time_delta": "expected a duration such as PT1H30M",
    "time": "expected a time such as 09:30:00",
    "uuid": "expected a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8",
    "int_": "expected an integer",
    "float_": "expected a number",
    "decimal_": "expected a number, or a string that is one",
    "bool_": "expected true or false",
    "string_type": "expected a string",
    "bytes_type": "expected a string",
    "list_type": "expected an array",
    "tuple_type": "expected an array",
    "set_type": "expected an array",
    "frozen_set_type": "expected an array",
    "dict_type": "expected an object",
    "model_": "expected an object",
    "dataclass_": "expected an object",
    "path_type": "expected a path, as a string",
    "missing": "is required",
}
_BOUND = re.compile(".*_(past|future|naive|aware|exact|inexact|digits|places|size|number|offset)$")


def _expected(detail: ErrorDetails) -> str:
    """Return what was expected; pydantic's message where it does not repeat the input."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind.startswith("union_tag"):
        tags = context.get("expected_tags")
        key = str(context.get("discriminator")).strip("'")
        return f"its field {key!r} " + (f"must be one of {tags}" if tags else "is required")
    if not _BOUND.match(kind):
        for prefix, text in _EXPECTED.items():
            if kind.startswith(prefix):
                return text
    message = re.sub("^(Value error|Assertion failed), ", "", detail["msg"])
    message = re.sub("^Input should (be )?", "expected ", message)
    if kind in ("literal_error", "enum") and isinstance(detail["input"], str):
        allowed = re.findall(r"'((?:[^'\\]|\\.)*)'", str(context.get("expected")))
        return message + _closest(detail["input"], allowed)
    return message


def unknown_name(name: str, names: Sequence[str]) -> str:
    """Explain that a property does not exist: name the closest, and all that exist."""
    names = list(dict.fromkeys(names))
    existing = f"Properties: {', '.join(names)}" if names else "There are no properties"
    return f"no such property{_closest(name, names) or '.'} {existing}"


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(problems: Sequence[Problem]) -> str:
    """Write one line for each place with problems."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        places.setdefault(problem.where, []).append(problem.text)
    lines = [f"- {where}: {'; or '.join(dict.fromkeys(texts))}" for where, texts in places.items()]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"- and {len(lines) - _SHOWN} more"]
    return "\n".join(lines)
