"""Toolsets: tools that are decided anew at every step, and wrappers that change them."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from agentkit.errors import InvalidTool, safe_repr
from agentkit.tools.context import RunContext
from agentkit.tools.invoke import called
from agentkit.tools.options import Approval
from agentkit.tools.signature import describe
from agentkit.tools.tool import AnyTool, Tool

Tools: TypeAlias = Sequence[AnyTool] | Awaitable[Sequence[AnyTool]]


class Toolset:
    """Tools that are decided anew at every step. A subclass defines `tools`, sync or async.

    One that holds something open (a connection, a browser, a subprocess) defines `__aenter__`
    and `__aexit__`: each run enters it before its first step and leaves it at its end, in the
    same task. Runs at the same time each enter it; what `__aenter__` returns, if it is a
    toolset, is the one that the run uses.
    """

    def tools(self, context: RunContext[Any]) -> Tools:
        """Return the tools of this step."""
        raise NotImplementedError(f"{type(self).__name__} does not define tools(context).")

    def filter(self, keep: Callable[[RunContext[Any], AnyTool], bool]) -> Toolset:
        """Keep only the tools for which `keep(context, tool)` is true."""
        return _Mapped(self, lambda context, tool: tool if keep(context, tool) else None)

    def prefix(self, prefix: str) -> Toolset:
        """Put `prefix` before every name."""
        return _Changed(self, lambda tool: tool.with_(name=prefix + tool.name))

    def rename(self, names: Mapping[str, str]) -> Toolset:
        """Rename tools, by their present names."""
        names = dict(names)
        return _Changed(self, lambda tool: tool.with_(name=names.get(tool.name, tool.name)))

    def approve(self, approval: Approval = True) -> Toolset:
        """Require approval for calls of all these tools; see `Tool`."""
        return _Changed(self, lambda tool: tool.with_(approval=approval))


class FunctionToolset(Toolset):
    """A fixed set of tools, made of tools and functions."""

    def __init__(self, functions: Sequence[AnyTool | Callable[..., Any]]) -> None:
        self._tools = [cast("AnyTool", f) if isinstance(f, Tool) else Tool(f) for f in functions]

    def __repr__(self) -> str:
        return f"<FunctionToolset {', '.join(tool.name for tool in self._tools)}>"

    def tools(self, context: RunContext[Any]) -> Tools:
        """Return the tools, always the same."""
        return self._tools


class _Mapped(Toolset):
    """The tools of another toolset, each changed or left out."""

    def __init__(
        self, inner: Toolset, change: Callable[[RunContext[Any], AnyTool], AnyTool | None]
    ) -> None:
        self.inner = inner
        self._change = change

    async def tools(self, context: RunContext[Any]) -> Sequence[AnyTool]:
        changed = [self._change(context, tool) for tool in await tools_of(self.inner, context)]
        return [tool for tool in changed if tool is not None]


class _Changed(_Mapped):
    """Tools with other options: at every step the same objects, so that each is encoded once."""

    def __init__(self, inner: Toolset, change: Callable[[AnyTool], AnyTool]) -> None:
        super().__init__(inner, lambda _, tool: self._variant(tool))
        self._variant_of = change
        self._variants: WeakKeyDictionary[AnyTool, AnyTool] = WeakKeyDictionary()

    def _variant(self, tool: AnyTool) -> AnyTool:
        if tool not in self._variants:
            self._variants[tool] = self._variant_of(tool)
        return self._variants[tool]


def with_lifetime(toolset: Toolset) -> Toolset | None:
    """Return the toolset that is to be entered: this one, or what its wrappers wrap.

    Raises:
        InvalidTool: It can be entered or left, and not both.
    """
    while isinstance(toolset, _Mapped):
        toolset = toolset.inner
    enters, leaves = (hasattr(type(toolset), one) for one in ("__aenter__", "__aexit__"))
    if enters != leaves:
        defined, missing = ("__aenter__", "__aexit__") if enters else ("__aexit__", "__aenter__")
        raise InvalidTool(
            f"{safe_repr(toolset)} defines {defined} and no {missing}. A toolset with a lifetime "
            "defines both."
        )
    return toolset if enters else None


def as_entered(toolset: Toolset, entered: Mapping[int, Toolset]) -> Toolset:
    """Return a toolset as a run uses it that has entered some, by their ids."""
    if not isinstance(toolset, _Mapped):
        return entered.get(id(toolset), toolset)
    if (inner := as_entered(toolset.inner, entered)) is toolset.inner:
        return toolset
    wrapper = copy.copy(toolset)
    wrapper.inner = inner
    return wrapper


async def tools_of(
    source: Toolset | Callable[[RunContext[Any]], Tools], context: RunContext[Any]
) -> tuple[AnyTool, ...]:
    """Return the tools of a toolset, or of a function of the context, at this step.

    Raises:
        InvalidTool: Two of them have the same name, or it returned something else.
    """
    list_tools = source.tools if isinstance(source, Toolset) else source
    listed: Any = await called(list_tools, context)
    tools = tuple(cast("Iterable[AnyTool]", listed)) if isinstance(listed, Iterable) else (listed,)
    if wrong := [one for one in tools if not isinstance(one, Tool)]:
        text = f"{safe_repr(source)} returned {safe_repr(wrong[0])}; expected a list of tools."
        if listed is None:
            text += " Does its function tools(context) lack a return? For no tools, return []."
        elif hasattr(cast("Any", listed), "__aiter__"):
            text += " Its function tools(context) yields them: return them as a list."
        elif callable(wrong[0]):
            text += " Make a tool of a function with @tool, or Tool(function)."
        raise InvalidTool(text)
    check_names(tools)
    return tools


def check_names(tools: Sequence[AnyTool]) -> None:
    """Check that no two tools have the same name.

    Raises:
        InvalidTool: Two have; the text says where both are defined.
    """
    seen: dict[str, AnyTool] = {}
    for tool in tools:
        if (other := seen.get(tool.name)) is not None:
            raise InvalidTool(
                f"Two tools are named {tool.name!r}: {describe(other.function)} and "
                f"{describe(tool.function)}. Rename one with name=…, or .prefix() its toolset.",
                tool=tool.name,
            )
        seen[tool.name] = tool
