"""The pytest plugin: a marked test is answered from recordings, and fixtures for others.

    @pytest.mark.agentkit_replay("traces/umbrella.jsonl")
    def test_umbrella() -> None: ...

It stands outside the package because pytest loads it at the start of every session, also
where nothing is marked, and agentkit itself takes a fifth of a second to import: what the
hooks need of it is imported by the first marked test. `-p no:agentkit` turns it off.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentkit import Trace
    from agentkit.errors import ReplayDivergence
    from agentkit.replay.cassette import Cassette
    from agentkit.runtime.scope import Scope
    from agentkit.testing import ChatServer, ScriptedModel
    from agentkit.testing.network import NetworkBlocked

_MARKER = (
    "agentkit_replay(*paths, live=[], strictness='exact', network=False): answer the agents' runs "
    "of this test from these recordings, one file for each run, relative to the test's file. No "
    "model is asked, no tool is run but those of live, and the network is blocked unless "
    "network=True. strictness='structural' lets texts and arguments differ. See --agentkit-record."
)
_BLOCKED = (
    "the network is blocked while a test is answered from recordings (agentkit_replay). Put "
    "network=True into the marker if the test itself needs it."
)

_LOOSER = """\
If other texts, arguments and settings are fine here: agentkit_replay(…, strictness="structural").\
"""
_LIVE = """\
To see what the model answers now: agent.replay(path, plan="model_live"), without the marker.\
"""


@dataclass(slots=True)
class _Test:
    """A marked test that runs.

    Attributes:
        cassette: Its recordings.
        paths: Their files.
        advice: How they are recorded.
        strictness: What has to be the same.
        refused: The connections that were not made.
        written: The recordings that it has made.
    """

    cassette: Cassette
    paths: Sequence[Path]
    advice: str
    strictness: str
    refused: Sequence[NetworkBlocked] = ()
    written: Sequence[Path] = ()

    def described(self, error: Exception) -> str:
        """Return an error as the report has it, with what to do where a recording does not fit."""
        from agentkit.errors import ReplayDivergence  # loaded by now

        lines = [f"{type(error).__name__}: {error}"]
        if isinstance(error, ReplayDivergence):
            if self.strictness == "exact" and _is_of_texts(error):
                lines.append(_LOOSER)
            lines.append(_LIVE)
            lines += [self.advice] if self.advice not in lines[0] else []
        return "\n".join(lines)

    def cause(self) -> str | None:
        """Return why the test fails, if its recordings or the blocked network are the cause."""
        if (problem := self.cassette.problem()) is not None:
            return self.described(problem)
        return f"NetworkBlocked: {self.refused[0]}" if self.refused else None


_TEST = pytest.StashKey[_Test]()
_PASSED = pytest.StashKey[dict[Path, str]]()
"""Each recording that a test of this session has passed with, and the first such test.

A worker of xdist knows its own tests only: of two on different workers the last one's stays.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--agentkit-record`."""
    parser.getgroup("agentkit").addoption(
        "--agentkit-record",
        choices=("none", "missing", "all"),
        default="none",
        help="Which recordings of tests marked with agentkit_replay are made by real runs: "
        "none (default), those whose file is missing, or all of them anew.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.stash[_PASSED] = {}
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(autouse=True)
def _agentkit_replay(  # pyright: ignore[reportUnusedFunction]  # pytest finds it
    request: pytest.FixtureRequest,
) -> Generator[None, None, None]:
    """Answers the runs of a marked test, and of the fixtures that are made for it alone.

    Fixtures of a wider scope come before: they serve other tests, and may need the network.
    """
    item: pytest.Item = request.node
    marker = item.get_closest_marker("agentkit_replay")
    if marker is None:
        yield
        return
    from agentkit.errors import TraceError  # see the module's docstring
    from agentkit.replay.cassette import Cassette
    from agentkit.runtime.request import intercepted_by
    from agentkit.testing.guard import block_models
    from agentkit.testing.network import network_blocked

    paths, options = _arguments(item, marker)
    network = options.pop("network")
    others = _others(item, paths)
    advice = _advice(item, others)
    cassette, wrong = None, ""
    try:
        record: Any = item.config.getoption("agentkit_record")
        cassette = Cassette(paths, record, advice=advice, kept=others, **options)
    except TraceError as error:
        wrong = error.message
    if cassette is None:  # not in the handler: the report would show both exceptions
        pytest.fail(wrong, pytrace=False)
    test = item.stash[_TEST] = _Test(cassette, paths, advice, options["strictness"])
    with ExitStack() as stack:
        stack.enter_context(intercepted_by(cassette.intercept))
        if not cassette.records:
            stack.enter_context(block_models())
        if not (network or cassette.records):
            test.refused = stack.enter_context(network_blocked(_BLOCKED))
        yield


def _arguments(item: pytest.Item, marker: pytest.Mark) -> tuple[list[Path], dict[str, Any]]:
    """Return the recordings and the marker's options, or fail where they make no sense."""
    names = marker.args
    options: dict[str, Any] = {"live": [], "strictness": "exact", "network": False}
    known = marker.kwargs.keys() <= options.keys()
    options |= marker.kwargs
    paths = [item.path.parent / name for name in names if isinstance(name, (str, Path))]
    valid = (
        isinstance(options["live"], (list, tuple))
        and options["strictness"] in ("exact", "structural")
        and isinstance(options["network"], bool)
    )
    if not names or len(set(paths)) < len(names) or not (known and valid):
        given = ", ".join([*map(repr, names), *(f"{k}={v!r}" for k, v in marker.kwargs.items())])
        pytest.fail(
            f"agentkit_replay({given}): expected the path of a recording for each run, such as "
            'agentkit_replay("traces/answer.jsonl"), and live=["…"], strictness="structural" or '
            "network=True.",
            pytrace=False,
        )
    return paths, options


def _is_of_texts(error: ReplayDivergence) -> bool:
    """Return whether it is of a kind that strictness="structural" lets pass."""
    if error.kind == "wrong_call":
        return (error.pointer or "").startswith("/arguments")
    return error.kind in ("request_changed", "tool_schema_changed", "order_changed")


def _others(item: pytest.Item, paths: Sequence[Path]) -> dict[Path, str]:
    """Return the recordings that another test has passed with, with the name of that test."""
    passed, own = item.config.stash[_PASSED], _name(item)
    known = ((path, passed.get(path.resolve(), own)) for path in paths)
    return {path: other for path, other in known if other != own}


def _advice(item: pytest.Item, others: Mapping[Path, str]) -> str:
    """Return how a test is recorded, and what to do first where that would break another."""
    lines = [
        f"{str(path)!r} is also the recording of {other}, which has passed. Where the runs are to "
        "differ, name another file for each test, and for each case: "
        'pytest.param(…, marks=pytest.mark.agentkit_replay("…")).'
        for path, other in others.items()
    ]
    command = f"To record it: pytest --agentkit-record=all {shlex.quote(_name(item))}"
    return "\n".join([*lines, command])


def _name(item: pytest.Item) -> str:
    """Return what runs this test, from where pytest was called: not from its rootdir."""
    _, colons, inside = item.nodeid.partition("::")
    return f"{_relative(item, item.path).as_posix()}{colons}{inside}"


# Fixtures


@pytest.fixture
def chat_server() -> Generator[Callable[..., ChatServer]]:
    """`chat_server(replies, strict=True)` starts a `ChatServer` that runs as long as the test."""
    from agentkit.testing import ChatServer

    with ExitStack() as stack:

        def start(replies: Any, *, strict: bool = True) -> ChatServer:
            return stack.enter_context(ChatServer(replies, strict=strict))

        yield start


@pytest.fixture
def scripted_model() -> Generator[Callable[..., ScriptedModel]]:
    """`scripted_model(answers)` makes a `ScriptedModel`; the test fails if answers are left."""
    from agentkit.testing import ScriptedModel

    models: list[ScriptedModel] = []

    def make(answers: Sequence[Any], **options: Any) -> ScriptedModel:
        models.append(ScriptedModel(answers, **options))
        return models[-1]

    yield make
    for model in models:
        if model.left:
            total = len(model.left) + len(model.requests)
            pytest.fail(
                f"{len(model.left)} of {total} answers of {model.name!r} were not used: the next "
                f"is {model.left[0]!r}.",
                pytrace=False,
            )


@pytest.fixture
def no_network() -> Generator[None]:
    """Refuses new connections in the test, and fails it if there was an attempt."""
    from agentkit.testing.network import network_blocked

    with network_blocked("this test has the fixture no_network.") as refused:
        yield
    if refused:
        pytest.fail(f"NetworkBlocked: {refused[0]}", pytrace=False)


@pytest.fixture
def trace() -> Generator[Callable[..., Trace]]:
    """`trace()` returns the trace of the test's run; `trace(0)`, `trace(1)`, … of several."""
    from agentkit.runtime.scope import followed_by

    runs: list[Scope] = []

    def of_run(index: int | None = None) -> Trace:
        from agentkit.runtime.result import read_trace

        if not runs or (index is None and len(runs) > 1):
            pytest.fail(f"trace(): this test has {len(runs)} runs; name one by its index.")
        found = read_trace(runs[index or 0].trace)
        if found is None:
            pytest.fail(f"The run {runs[index or 0].run} has no trace: trace=False.")
        return found

    with followed_by(runs.append):
        yield of_run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that passed though its recordings do not fit, and write what it recorded."""
    result = yield
    test = item.stash.get(_TEST, None)
    # What a unittest.TestCase raised waits there for the report.
    if test is None or getattr(item, "_excinfo", None):
        return result
    from agentkit.errors import AgentKitError  # loaded by now

    wrong: str | None = None
    try:
        test.written = test.cassette.finish()
    except AgentKitError as error:
        wrong = test.described(error)
    if wrong is not None:
        pytest.fail(wrong, pytrace=False)
    for path in test.paths:
        item.config.stash[_PASSED].setdefault(path.resolve(), _name(item))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show first what a replay found: the test's own error may be far from it."""
    test = item.stash.get(_TEST, None)
    if test is not None and call.excinfo is not None:
        _shorten(item, call.excinfo, test.cassette.problem())
    report = yield
    if test is None or call.when != "call":
        return report
    cause = test.cause() if report.failed else None
    if cause is not None and not str(report.longrepr).startswith(cause):
        report.longrepr = _Explained(cause, report.longrepr)  # type: ignore[assignment]  # shown alike
    elif report.failed and test.cassette.records:
        kept = "A test that fails records nothing: its recordings are as they were."
        report.sections.append(("agentkit", kept))
    # On the report, because xdist's workers send those to the process that prints.
    report.__dict__["agentkit_recorded"] = [str(_relative(item, path)) for path in test.written]
    return report


def _shorten(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], problem: Exception | None
) -> None:
    """Leave out how agentkit came to find a problem: the line that began the run says more."""
    from agentkit.errors import ReplayDivergence  # loaded by now

    entry, error = excinfo.tb, excinfo.value
    found = error is problem or isinstance(error, ReplayDivergence)
    if not found or item.config.getoption("fulltrace"):
        return
    while (after := entry.tb_next) is not None:
        if after.tb_frame.f_globals.get("__package__") == "agentkit":
            entry.tb_next = None
            return
        entry = after


def _relative(item: pytest.Item, path: Path) -> Path:
    """Return the path as seen from where pytest was called."""
    here = item.config.invocation_params.dir
    return path.relative_to(here) if path.is_relative_to(here) else path


class _Explained:
    """A failure with its cause before it, on a terminal and as text."""

    def __init__(self, cause: str, failure: Any) -> None:
        self.reprcrash = getattr(failure, "reprcrash", None)  # for the summary of one line
        self._cause = cause
        self._failure = failure

    def toterminal(self, tw: Any) -> None:
        """Write to pytest's terminal."""
        for line in self._cause.splitlines():
            tw.line(line, red=True, bold=True)
        if hasattr(self._failure, "toterminal"):
            self._failure.toterminal(tw)
        else:
            tw.line(f"\n{self._failure}")

    def __str__(self) -> str:
        return f"{self._cause}\n\n{self._failure}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the files that are new."""
    reports = [one for several in terminalreporter.stats.values() for one in several]
    written = [path for one in reports for path in getattr(one, "agentkit_recorded", ())]
    if written:
        terminalreporter.section("agentkit")
    for path in dict.fromkeys(written):
        terminalreporter.line(f"recorded {path}")
