"""Docstrings: what they say of a function and of each of its parameters."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

__all__ = ["Docstring", "parse"]

_GOOGLE = re.compile(r"^(Args|Arguments|Parameters|Params|Returns|Yields|Raises):[ \t]*$", re.M)


@dataclass(frozen=True, kw_only=True, slots=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        description: Summary, body, and what is returned: for the model.
        parameters: Descriptions by parameter name.
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])


def parse(text: str | None) -> Docstring:
    """Take a docstring apart, whether google, numpy, reST or epydoc.

    A docstring in none of these styles is a description.
    """
    if not text or not text.strip():
        return Docstring()
    import docstring_parser  # costs as much as the rest of a small program's imports

    text = inspect.cleandoc(text)
    # A section needs an empty line before it; forgetting that is common.
    text = re.sub(r"(?<!\n)\n(?=(Args|Arguments|Parameters|Params|Returns|Yields|Raises):[ \t]*\n)", "\n\n", text)
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return Docstring(description=text)
    parameters: dict[str, str] = {}
    for one in parsed.params:
        for name in re.sub(r"\(.*", "", one.arg_name).split(","):
            if one.description:
                parameters[name.strip().lstrip("*")] = " ".join(one.description.split())
    returned = parsed.returns and parsed.returns.description
    parts = [parsed.short_description, parsed.long_description]
    if returned:
        parts.append(f"Returns: {' '.join(returned.split())}")
    return Docstring(
        description="\n\n".join(part.strip() for part in parts if part), parameters=parameters
    )
