"""Docstrings as the description of a function and of each parameter."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

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
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])


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
    parameters = {
        name.strip().lstrip("*"): " ".join(one.description.split())
        for one in parsed.params
        for name in re.sub(r"\(.*", "", one.arg_name).split(",")
        if one.description
    }
    summary = parsed.short_description
    parts = [None if summary == _NO_SUMMARY else summary, parsed.long_description]
    if parsed.returns and parsed.returns.description:
        parts.append(f"Returns: {' '.join(parsed.returns.description.split())}")
    for example in parsed.examples:
        lines = [part for part in (example.snippet, example.description) if part]
        parts.append("\n".join(["Example:", *lines]))
    description = "\n\n".join(part.strip() for part in parts if part)
    return Docstring(description=description, parameters=parameters)
