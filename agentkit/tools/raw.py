"""Tools from a raw JSON Schema: another program's, or written by hand."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agentkit.errors import InvalidTool
from agentkit.messages import JsonObject
from agentkit.schema.walk import at
from agentkit.tools.signature import EMPTY, STARS, Signature, describe
from agentkit.tools.validation import RAW_TYPE, Checker, Problem, unknown_name

if TYPE_CHECKING:
    import jsonschema_rs


class RawSchema:
    """As `FunctionSchema`, from a JSON Schema; the function takes its properties by keyword.

    Drafts 2020-12 (default), 2019-09, 7, 6 and 4, told apart by `$schema`.
    References lead nowhere outside the schema: nothing is fetched.

    Args:
        name: The tool's, for errors.
        schema: A JSON Schema of an object.
        signature: Of what is called. Of its annotations only the context's is looked at.

    Raises:
        InvalidTool: The schema is not valid, or the function does not take its properties.
    """

    description = ""
    warnings: tuple[str, ...] = ()

    def __init__(self, name: str, schema: JsonObject, signature: Signature) -> None:
        schema = {"type": "object", "properties": {}, **schema}
        if schema["type"] != "object":
            raise _invalid(name, f"is of type {schema['type']!r}; arguments are an object")
        self._signature = signature
        parameters = signature.parameters
        takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        shown, required = {*schema["properties"]}, {*schema.get("required", ())}
        plain = [p for p in parameters if p.kind not in STARS]
        hidden = {p.name for p in plain if p.injected}
        known = {p.name for p in plain} - hidden
        needed = {p.name for p in plain if p.default is EMPTY} - hidden
        wrong: dict[str, set[str]] = {
            "takes from the run": shown & hidden,
            "does not take": set() if takes_more else shown - known,
            "needs, but the schema does not require,": needed - required,
        }
        for how, names in wrong.items():
            if names:
                problem = f"{describe(signature.function)} {how} {', '.join(sorted(names))}"
                raise InvalidTool(f"{problem} of the schema of tool {name!r}.", tool=name)
        validator = compiled(name, schema)
        self.checker: Checker = _Checker(validator, schema, closed=not takes_more)

    def bind(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Values as positional and keyword arguments; see `Signature.bind`."""
        return self._signature.bind(values, {})


_DRAFTS = re.compile(
    r"https?://json-schema\.org/(draft/2020-12|draft/2019-09|draft-0[467])/schema#?"
)


def compiled(name: str, schema: JsonObject) -> jsonschema_rs.Validator:
    """A validator for a schema.

    Raises:
        InvalidTool: The schema is not valid.
    """
    import jsonschema_rs  # a native library that most programs never need

    draft = schema.get("$schema")
    if draft is not None and not _DRAFTS.fullmatch(str(draft)):
        known = "known are 2020-12, 2019-09, 7, 6 and 4"
        raise _invalid(name, f"is of the draft {draft!r}; {known}")
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


class _Checker:
    """Checks against a JSON Schema. What fits is passed on as it came."""

    def __init__(
        self, validator: jsonschema_rs.Validator, schema: JsonObject, *, closed: bool = False
    ) -> None:
        self.schema = schema
        self._validator = validator
        self._closed = closed

    def check(self, data: JsonObject, text: str, *, strict: bool) -> JsonObject | list[Problem]:
        """See `Checker.check`. Problems are placed by JSON pointers."""
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
    path, kind, said = tuple(error.instance_path), error.kind.name, error.kind.as_dict()
    value, text = error.instance, error.message
    match kind:
        case "anyOf" | "oneOf" if any(said.get("context") or ()):
            for branch in said["context"]:
                for inner in branch:
                    yield from _problems(inner, schema)
            return
        case "additionalProperties":
            names = [name for one in at(schema, path) for name in one.get("properties", ())]
            for key in said["unexpected"]:
                yield _unknown((*path, key), names)
            return
        case "required":
            path, value, text = (*path, said["property"]), ..., "is required"
        case "type":
            types = said.get("types") or [said.get("type")]
            text = f"expected {' or '.join(map(str, types))}"
            kind = kind if "string" in types else RAW_TYPE
        case "enum":
            text = f"expected one of {', '.join(map(json.dumps, said['options']))}"
        case "const":
            text = f"expected {json.dumps(said['expected_value'])}"
        case _:
            pass
    yield Problem(path=path, where=pointer(path), text=text, value=value, kind=kind)


def _unknown(path: tuple[int | str, ...], names: list[str]) -> Problem:
    text = unknown_name(str(path[-1]), names)
    return Problem(path=path, where=pointer(path), text=text, value=...)


def pointer(path: Iterable[int | str]) -> str:
    """The JSON pointer of a place; `/` for the whole."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path) or "/"
