"""Docstrings as the description of a function and of each parameter."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import functools
import inspect
import re
import typing
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

_STYLES = {
    "GOOGLE": r"(?:Args|Arguments|Parameters|Params|Returns|Yields|Raises|Examples?):[ \t]*$",
    "NUMPYDOC": r"(?:Parameters|Other Parameters|Returns|Yields|Raises|Examples)[ \t]*\n-{3,}",
    "REST": r":(?:param|parameter|arg|argument|key|keyword|returns?|raises?|type|rtype)\b[^:]*:",
    "EPYDOC": r"@(?:param|type|returns?|rtype|raises?)\b[^:]*:",
}
_NO_SUMMARY = "…"  # the parser takes any first line for the summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Docstring:
    """A parsed docstring.

    Attributes:
        description: Summary, body, returns and examples: for the model.
        parameters: Descriptions by parameter name.
        types: Types by parameter name, as they are written.
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    types: dict[str, str] = field(default_factory=dict[str, str])


def text_of(function: Any) -> str | None:
    """Return the docstring of what is called, unless inherited or generated."""
    if isinstance(function, functools.partial):
        return text_of(cast("Any", function).func)
    if inspect.isclass(function):
        text = function.__dict__.get("__doc__")
        generated = not isinstance(text, str) or text.startswith(f"{function.__name__}(")
        return None if generated else text
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        return inspect.getdoc(function)
    return inspect.getdoc(type(function).__call__) or text_of(type(function))


def parse(text: str | None) -> Docstring:
    """Parse a docstring in Google, NumPy, reST or Epydoc style.

    A docstring without sections of any of these is all description.
    """
    text = inspect.cleandoc(text or "").strip()
    styles = [name for name, start in _STYLES.items() if re.search(f"^{start}", text, re.M)]
    if not styles:
        return Docstring(description=text)
    import docstring_parser  # only docstrings with sections need it

    if styles[0] == "GOOGLE":
        # The parser needs an empty line before a section, and that is often forgotten.
        text = re.sub(rf"(?<!\n)\n(?={_STYLES['GOOGLE']})", "\n\n", text, flags=re.M)
    if re.match(_STYLES[styles[0]], text, re.M):
        text = f"{_NO_SUMMARY}\n\n{text}"
    try:
        parsed = docstring_parser.parse(text, docstring_parser.DocstringStyle[styles[0]])
    except docstring_parser.ParseError:
        return Docstring(description=text)
    documented = [
        (name.strip().lstrip("*"), one)
        for one in parsed.params
        for name in re.sub(r"\(.*", "", one.arg_name).split(",")
    ]
    parameters = {k: " ".join(one.description.split()) for k, one in documented if one.description}
    types = {name: one.type_name for name, one in documented if one.type_name}
    summary = parsed.short_description
    parts = [None if summary == _NO_SUMMARY else summary, parsed.long_description]
    if parsed.returns and parsed.returns.description:
        parts.append(f"Returns: {' '.join(parsed.returns.description.split())}")
    for example in parsed.examples:
        lines = [part for part in (example.snippet, example.description) if part]
        parts.append("\n".join(["Example:", *lines]))
    description = "\n\n".join(part.strip() for part in parts if part)
    return Docstring(description=description, parameters=parameters, types=types)


# Types

_WORDS = {
    "string": "str",
    "integer": "int",
    "boolean": "bool",
    "number": "float",
    "any": "Any",
    "dictionary": "dict",
    "none": "None",
    "object": "Any",
    "mapping": "dict",
    "iterable": "list",
    "sequence": "list",
    "array": "list",
}
_ASIDE = re.compile(r"[,;]?\s*\(?\b(optional|required|keyword[- ]only|default)\b.*", re.DOTALL)
_ITEMS = re.compile(r"(?i)(list|sequence|iterable|array|tuple|set)s? of (?:the )?([^()]+)")
_NODES = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant),
    *(ast.BinOp, ast.BitOr, ast.Load),
)


def documented_type(text: str, names: Mapping[str, Any]) -> Any:
    """Return the type that a docstring names, as in `list of str, optional`; None if it is none.

    Args:
        text: The type as it is written.
        names: What the names in it mean, beside those of Python and typing.
    """
    text = re.sub(r":(?:\w+:)+`~?([^`]*)`|`+", r"\1", text)
    text = _ASIDE.sub("", text).strip(" .~")
    if re.fullmatch(r"\{[^:]+\}", text):
        text = f"Literal[{text[1:-1]}]"
    text = " | ".join(map(_as_python, re.split(r"\s+or\s+", text)))
    spaces = (names, vars(typing), vars(collections.abc), vars(builtins))
    try:
        tree = ast.parse(text, mode="eval")
        if not all(isinstance(node, _NODES) for node in ast.walk(tree)):  # no calls
            return None
        hint = eval(text, {"__builtins__": {}}, ChainMap(*map(dict, spaces)))
    except Exception:  # it is prose
        return None
    named = isinstance(hint, type) or typing.get_origin(hint) is not None or hint is Any
    return hint if named else None


def _as_python(text: str) -> str:
    """Write a type that stands in a docstring as an annotation."""
    text = text.strip()
    if of := _ITEMS.fullmatch(text):
        outer, items = of[1].lower(), _as_python(of[2])
        ending = ", ..." if outer == "tuple" else ""
        return f"{_WORDS.get(outer, outer)}[{items}{ending}]"
    singular = text[:-1] if text.endswith("s") and text[:-1] in (*_WORDS, *_PLURAL) else text
    return _WORDS.get(singular.lower(), singular)


_PLURAL = ("str", "int", "float", "bool", "dict", "list", "tuple")
