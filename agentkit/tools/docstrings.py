"""Docstrings: what they say of a function, and of each of its parameters."""

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
_NO_SUMMARY = "…"  # the parser takes a first line for the summary, whatever it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        description: Summary, body, what is returned and examples: for the model.
        parameters: Descriptions by parameter name.
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])


def parse(text: str | None) -> Docstring:
    """Take a docstring apart, whether google, numpy, reST or epydoc.

    A docstring with sections of none of these is all description.
    """
    text = inspect.cleandoc(text or "").strip()
    found = [name for name, start in _STYLES.items() if re.search(f"^{start}", text, re.M)]
    if not found:
        return Docstring(description=text)
    import docstring_parser  # only functions that have sections need it

    if found[0] == "GOOGLE":
        # A section needs an empty line before it; forgetting that is common.
        text = re.sub(rf"(?<!\n)\n(?={_STYLES['GOOGLE']})", "\n\n", text, flags=re.M)
    if re.match(_STYLES[found[0]], text, re.M):
        text = f"{_NO_SUMMARY}\n\n{text}"
    try:
        parsed = docstring_parser.parse(text, docstring_parser.DocstringStyle[found[0]])
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
        shown = [part for part in (example.snippet, example.description) if part]
        parts.append("\n".join(["Example:", *shown]))
    description = "\n\n".join(part.strip() for part in parts if part)
    return Docstring(description=description, parameters=parameters)
