"""Parse the JSON object in a model's text, and repair what has only one meaning.

First stop of a tool call's arguments and of a typed output. Valid JSON passes
untouched. Unambiguous damage is repaired and named: code fences, text around the
object, a stray closing brace, single and typographic quotes, Python literals, comments,
trailing commas, keys without quotes, an object encoded twice, empty text. Ambiguous or
truncated text is refused, with a message that the model can act on.

The repair rewrites tokens and leaves the parsing to a strict parser, so it changes
how a value is written, never the value.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
from typing import Any

from pydantic_core import from_json, to_json

from agentkit.errors import InvalidArguments
from agentkit.messages import JsonObject, is_array, is_object

DEEPEST = 128
"""Levels of arrays and objects that are read: what walks through a value may be recursive."""


def load(text: str, *, blank: bool = True) -> tuple[JsonObject, tuple[str, ...]]:
    """Parse the JSON object in `text`.

    Args:
        text: A model's text.
        blank: Whether no text, and null, stand for an empty object.

    Returns:
        The object, and the repairs that it needed.

    Raises:
        InvalidArguments: The text is not one JSON object, not even after an unambiguous repair.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise TypeError(f"Expected JSON text, not a value of type {type(text).__name__}.")
    value, repairs = _load(text)
    if isinstance(value, str):
        value, more = _load(value)
        repairs = (*repairs, "encoded twice", *more)
    if value is None and blank:
        return {}, (*repairs, "no arguments, read as an empty object")
    if not is_object(value):
        raise InvalidArguments(f"Expected one JSON object, not {_kind(value)}.")
    return value, repairs


def is_plain(text: str) -> bool:
    """Tell whether text is a JSON object as it stands, though `load` may still refuse it."""
    try:
        return is_object(from_json(text))
    except (TypeError, ValueError):
        return False


def is_simple(text: str) -> bool:
    """Tell whether JSON text without a key that comes twice is certainly read as it stands."""
    return "NaN" not in text and "Infinity" not in text and _is_shallow(text)


def _load(text: str) -> tuple[Any, tuple[str, ...]]:
    stripped = text.strip()
    return (None, ()) if stripped in ("", "None") else load_value(stripped)


def load_value(text: str) -> tuple[Any, tuple[str, ...]]:
    """Parse any JSON value, as `load` does; only objects are repaired."""
    repairs: tuple[str, ...] = ()
    try:
        value = decode(text.strip())
    except RecursionError:
        raise InvalidArguments("The JSON is nested too deeply.") from None
    except ValueError as error:
        value, repairs = _repair(text.strip(), error)
    if (repairs or not _is_shallow(text)) and _is_deep(value):
        raise InvalidArguments("The JSON is nested too deeply.")
    if not _is_unicode(text) or ("\\u" in text and not _is_unicode(_dumped(value))):
        raise InvalidArguments("The JSON is not valid Unicode: it holds half of a surrogate pair.")
    return value, repairs


_dumped = json.JSONEncoder(ensure_ascii=False).encode


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_shallow(text: str) -> bool:
    """Tell whether JSON text is certainly not nested too deeply, by its brackets alone.

    Without the other characters, a string is a pair of quotes, unless it has brackets itself.
    Then quotes or backslashes are left, and nothing is certain.
    """
    if len(text) <= DEEPEST:
        return True
    marks = text.encode(errors="replace").translate(None, _NO_MARKS)
    if marks.count(b"[") + marks.count(b"{") <= DEEPEST:
        return True
    if b"\\" in marks or marks.count(b'"') != 2 * marks.count(b'""'):
        return False
    marks = marks.translate(None, b'"')
    for _ in range(DEEPEST // 2):  # each turn takes one level away, or two
        if not marks:
            return True
        left = marks.replace(b"[]", b"").replace(b"{}", b"")
        if left == marks:
            return False
        marks = left
    return not marks


_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"\\'))


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if type(one) is dict else one
        level = [one for one in inner if type(one) is dict or type(one) is list]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    result = dict(pairs)
    if len(result) < len(pairs):
        for key, value in pairs:
            if result[key] != value or type(result[key]) is not type(value):
                raise InvalidArguments(
                    f"The JSON is ambiguous: the key {key!r} appears twice, with different values."
                ) from None
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


_strictly = functools.partial(
    json.JSONDecoder,
    object_pairs_hook=_unique,
    parse_constant=_no_constant,
    parse_float=_finite,
)
_decode_slowly = _strictly().decode
_decode_lenient = _strictly(strict=False).decode  # line breaks inside strings


def decode(text: str) -> Any:
    """Parse strict JSON: no NaN (ValueError), no key with two values (InvalidArguments).

    The fast parser drops a key that comes twice, and reads a number that is too large as
    infinite. What it has read is written again to see that: a key has its quotes.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
        written = to_json(value)
    except (TypeError, ValueError):
        return _decode_slowly(text)  # which says what is wrong, or reads what is not
    whole = text.count('"') == written.count(b'"') and "\\u0022" not in text
    return value if whole and b"Infinity" not in written else _decode_slowly(text)


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<comment>//[^\n]*|/\*.*?\*/|\#[^\n]*)
    | [\u201c-\u201f](?P<smart>[^\u201c-\u201f"\\]*(?:\\.[^\u201c-\u201f"\\]*)*)[\u201c-\u201f"]
    | [\u2018-\u201b](?P<curly>[^\u2018-\u201b'"\\]*(?:\\.[^\u2018-\u201b'"\\]*)*)[\u2018-\u201b]
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | '(?P<single>[^'\\]*(?:\\.[^'\\]*)*)'
    | (?P<number>-?[0-9][0-9.eE+-]*)
    | (?P<key>(?!(?:True|False|None|true|false|null)\b)[A-Za-z_$][A-Za-z0-9_$]*(?=\s*:))
    | (?P<word>\w+)
    | (?P<mark>[{}\[\]:,])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_FENCE = re.compile(r"```\w*")


def _repair(text: str, error: ValueError) -> tuple[Any, tuple[str, ...]]:
    """Rewrite the one object in `text` as strict JSON, token by token."""
    start = text.find("{")
    if start < 0:
        raise _not_json(text, error)
    tokens, end, notes = _tokens(text, start, error)
    before, after = _FENCE.sub("", text[:start]), _FENCE.sub("", text[end:])
    if after.strip() in ("}", "]"):
        notes.add("a stray closing brace")
        after = ""
    if re.search(r"[{}\[\]]", before + after):
        raise InvalidArguments(
            "Expected one JSON object, and there are several JSON values."
            if _holds_json(before) or _holds_json(after)
            else "Expected one JSON object, and there are other brackets around it. Send only the "
            "object."
        )
    if "```" in text[:start] + text[end:]:
        notes.add("a code fence around it")
    if before.strip() or after.strip():
        notes.add("text around it")
    try:
        value = _decode_lenient("".join(tokens))
    except (ValueError, RecursionError):
        raise _not_json(text, error) from None
    return value, tuple(sorted(notes)) or ("line breaks inside a string",)


def _holds_json(text: str) -> bool:
    """Tell whether one of the first two brackets in the text begins an array or object."""
    for match in itertools.islice(re.finditer(r"[{\[]", text), 2):
        with contextlib.suppress(ValueError, RecursionError, InvalidArguments):
            if match[0] == "{":
                _tokens(text, match.start(), ValueError())
            else:
                json.JSONDecoder(strict=False).raw_decode(text, match.start())
            return True
    return False


def _tokens(text: str, start: int, error: ValueError) -> tuple[list[str], int, set[str]]:
    """Return the object at `start` as strict JSON tokens, its end, and the repairs."""
    tokens: list[str] = []
    notes: set[str] = set()
    depth, place = 0, start
    while match := _TOKEN.match(text, place):
        place = match.end()
        token, note = _token(match)
        if token is None:
            raise _not_json(text, error)
        while token in ("}", "]") and tokens[-1].isspace():
            tokens.pop()
        if token in ("}", "]") and tokens[-1:] == [","] and tokens[-2:-1] not in _OPEN:
            tokens.pop()
            note = "a trailing comma"
        notes |= {note} if note else set()
        tokens.append(token)
        depth += (token in ("{", "[")) - (token in ("}", "]"))
        if depth == 0:
            return tokens, place, notes
    raise _not_json(text, error, cut_off=place == len(text) or text[place] in "\"'")


_OPEN = (["{"], ["["], [","], [":"])


def _token(match: re.Match[str]) -> tuple[str | None, str]:
    """Return the token as strict JSON (None if that is ambiguous), and the repair."""
    token = match.group()
    match match.lastgroup:
        case "comment":
            return " ", "a comment"
        case "smart" | "curly" as kind:
            return _double_quoted(match[kind]), "typographic quotes"
        case "single":
            return _double_quoted(match["single"]), "single quotes"
        case "double" if "\\'" in token:
            return _double_quoted(match["double"]), "a wrong escape"
        case "key":
            return f'"{token}"', "a key without quotes"
        case "word" if token in _WORDS:
            return _WORDS[token], "Python literals"
        case "word" if token not in ("true", "false", "null"):
            return None, ""
        case _:
            return token, ""


def _double_quoted(body: str) -> str:
    """Quote the body of a string as JSON, whatever its quotes were."""
    swaps = {"\\'": "'", '"': '\\"'}
    return '"' + re.sub(r"""\\['"\\]|\"""", lambda m: swaps.get(m[0], m[0]), body) + '"'


def _not_json(text: str, error: ValueError, *, cut_off: bool = False) -> InvalidArguments:
    if cut_off:
        return InvalidArguments(
            f"The JSON is cut off after {len(text)} characters. Send the whole object; shorten it "
            "if it was too long."
        )
    where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return InvalidArguments(f"Invalid JSON: {reason}{where}. Send one JSON object.")


def _kind(value: Any) -> str:
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number"}
    return "an array" if is_array(value) else names.get(value.__class__, "null")
