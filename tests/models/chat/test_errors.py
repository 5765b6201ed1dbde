"""Error answers of every shape as exceptions of `agentkit.errors`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    InvalidResponse,
    ModelError,
    ModelHTTPError,
    ModelNotFound,
    ModelRefusal,
    ModelUnreachable,
    QuotaExceeded,
    RateLimited,
)
from agentkit.models.chat.errors import error_from_http, is_transient, retry_after


def error(status: int, body: Any = b"", **headers: str) -> ModelError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_from_http(status, names, raw, model="m", now=1_000_000_000)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, "context"),
        (400, {"message": "This model's maximum context length is 8192 tokens"}, "context"),
        (400, {"error": {"message": "the request exceeds the available context size"}}, "context"),
        (413, {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, "context"),
        (500, {"error": {"message": "Context size has been exceeded."}}, "context"),
        (401, {"error": {"message": "Incorrect API key provided"}}, "auth"),
        (403, b"", "auth"),
        (400, {"error": {"message": "API key not valid", "code": "invalid_api_key"}}, "auth"),
        (402, {"error": {"message": "Insufficient Balance"}}, "quota"),
        (429, {"error": {"message": "no", "code": "insufficient_quota"}}, "quota"),
        (429, {"error": {"message": "Rate limit reached"}}, "rate"),
        (429, b"", "rate"),
        (404, {"error": {"message": "no", "code": "model_not_found"}}, "missing"),
        (404, b"404 page not found", "missing"),
        (400, {"error": {"message": "no", "code": "content_filter"}}, "refusal"),
        (400, {"error": {"message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
         "refusal"),
        (500, b"", "http"),
        (418, b"", "http"),
    ],
)  # fmt: skip
def test_kinds(status: int, body: Any, kind: str) -> None:
    """Each cause has its own exception, recognised by the status and the text."""
    classes = {
        "context": ContextLengthExceeded,
        "auth": AuthenticationFailed,
        "quota": QuotaExceeded,
        "rate": RateLimited,
        "missing": ModelNotFound,
        "refusal": ModelRefusal,
        "http": ModelHTTPError,
    }
    assert type(error(status, body)) is classes[kind]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "words", "type": "t"}}, "words"),
        ({"error": "words"}, "words"),
        ([{"error": {"message": "words"}}], "words"),
        ({"object": "error", "message": "words", "code": 400}, "words"),
        ({"detail": "words"}, "words"),
        ({"detail": [{"loc": ["body"], "msg": "words"}, {"msg": "more"}]}, "words; more"),
        ({"errors": [{"message": "words"}]}, "words"),
        ("words", "words"),
        (b"words", "words"),
        (b"<html><head><style>p{}</style></head><h1>words</h1></html>", "words"),
        (b"", "no reason given"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"error": {"message": None, "metadata": {"raw": "words"}}}, "words"),
        ({}, "no reason given"),
        (7, "no reason given"),
    ],
)
def test_the_servers_message(body: Any, text: str) -> None:
    """The server's message is found in a body of any shape."""
    assert str(error(400, body)) == f"m answered 400 Bad Request: {text}"


def test_attributes_of_an_error() -> None:
    """An error has the status, code, request id, body and the time to wait."""
    body = {"error": {"message": "slow", "code": "rate_limit_exceeded"}}
    caught = error(429, body, x_request_id="req_1", retry_after="2")
    assert isinstance(caught, RateLimited)
    assert caught.data() == {
        "model": "m",
        "status": 429,
        "code": "rate_limit_exceeded",
        "request_id": "req_1",
        "body": json.dumps(body),
        "retry_after": 2.0,
    }


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sun, 09 Sep 2001 01:46:50 GMT"}, 10),
        ({"retry-after": "Sun, 09 Sep 2001 01:46:50 GMT",
          "date": "Sun, 09 Sep 2001 01:46:45 GMT"}, 5),
        ({"retry-after": "Sun, 09 Sep 2001 01:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After may be seconds, milliseconds or a date by the server's clock."""
    assert retry_after(headers, 1_000_000_000) == seconds


def test_retry_after_in_the_body() -> None:
    """Gemini's retryDelay in the body counts as Retry-After."""
    body = {"error": {"message": "slow", "details": [{"retryDelay": "17s"}]}}
    caught = error(429, body)
    assert isinstance(caught, RateLimited)
    assert caught.retry_after == 17


@pytest.mark.parametrize(
    ("caught", "again"),
    [
        (ModelUnreachable("reset"), True),
        (InvalidResponse("cut off"), True),
        (ModelRefusal("no"), False),
        (error(408), True),
        (error(409), True),
        (error(429), True),
        (error(500), True),
        (error(529), True),
        (error(400), False),
        (error(401), False),
        (error(404), False),
        (error(422), False),
        (error(429, {"error": {"message": "no", "code": "insufficient_quota"}}), False),
        (error(400, {"error": {"message": "no", "code": "tool_use_failed"}}), True),
    ],
)
def test_transient_errors(caught: ModelError, again: bool) -> None:
    """Failures that may pass are transient; so is Groq's unparsable call."""
    assert is_transient(caught) is again


@given(
    st.integers(300, 599),
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "error errors message detail msg code type status metadata raw".split()
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_every_error_body_is_a_model_error(status: int, body: bytes) -> None:
    """Whatever body comes with an error status, the result is a ModelError."""
    assert isinstance(error(status, body), ModelError)
