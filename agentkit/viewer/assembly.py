"""Puts a page together: one script, one style, and data that cannot become either.

The script is written as modules, each one idea. They are joined here, so that a page needs
no server and nobody needs a bundler: each module becomes a function that returns what it
exports, after those that it imports, and loses its comments. Nothing else is done to them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r"^import (\{[^}]*\}) from '\./(\w+)\.js';$", re.M)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const) (\w+))", re.M)
_COMMENT = re.compile(
    r"^ */\*(?:(?!\*/).)*\*/\n|^ *//[^\n]*\n|/\*\* @type (?:(?!\*/).)*\*/ ?", re.M | re.S
)

START = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="agentkit view">\n'
)
"""How a page begins."""


@cache
def script(entry: str = "main") -> str:
    """Return a module of `assets/` and those that it needs, joined."""
    order: dict[str, str] = {}
    _collect(entry, order)
    return "'use strict';\n(() => {\n" + "".join(order.values()) + "})();\n"


def _collect(name: str, order: dict[str, str]) -> None:
    """Add a module after those that it imports."""
    if name in order:
        return
    text = _COMMENT.sub("", _asset(f"{name}.js"))
    for _, one in _IMPORT.findall(text):
        _collect(one, order)
    exports = ", ".join(exported for _, exported in _EXPORT.findall(text))
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = $\2;", text))
    order[name] = f"const ${name} = (() => {{\n{body}return {{ {exports} }};\n}})();\n"


@cache
def style() -> str:
    """Return the style sheet."""
    return _asset("style.css")


def _asset(name: str) -> str:
    return files("agentkit.viewer").joinpath("assets", name).read_text(encoding="utf-8")


def packed(lines: Iterable[str]) -> str:
    """Return lines as a text that holds nothing but letters, digits, `+`, `/` and `=`."""
    return base64.b64encode(gzip.compress("\n".join(lines).encode(), mtime=0)).decode()


def document(
    title: str,
    data: str,
    *,
    attributes: Mapping[str, str] | None = None,
    connect: str = "'none'",
    entry: str = "main",
) -> str:
    """Return a page.

    Args:
        title: Its title.
        data: What `packed` returned; empty where the page is sent its records.
        attributes: Further attributes of the data block, as `data-stream`.
        connect: Where the script may connect to, as `connect-src` has it.
        entry: The module that begins: `main`, or `runs`, the list of a folder.
    """
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script(entry))}",
            f"style-src {_hash(style())}",
            "img-src data:",
            f"connect-src {connect}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return "".join(_parts(html.escape(title), policy, data, attributes or {}, script(entry)))


def _parts(
    title: str, policy: str, data: str, attributes: Mapping[str, str], code: str
) -> Iterator[str]:
    more = "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())
    yield START
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="color-scheme" content="light dark">\n'
    yield '<meta name="referrer" content="no-referrer">\n'
    yield f"<title>{title}</title>\n<style>{style()}</style>\n</head>\n<body>\n"
    yield "<noscript>This page shows a run, and needs JavaScript for it.</noscript>\n"
    yield f'<script type="application/octet-stream" id="data"{more}>{data}</script>\n'
    yield f"<script>{code}</script>\n</body>\n</html>\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
