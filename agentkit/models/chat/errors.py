"""Error answers of servers as exceptions of `agentkit.errors`, and which of them pass.

Pure. Bodies come in every shape: an object, an array, a bare string, HTML,
nothing; and an error may sit inside a response of status 200. A caller needs
the right exception, and the server's own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from agentkit.errors import (
    AgentKitError,
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
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.models.lenient import as_object, json_or

_BODY_LIMIT = 2_000
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "cf-ray")
_RETRIED = {408, 409, 429, 529}
_LASTING_STATUSES = {501, 505}

_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|context (length|window|size|limit)"
    r"|too many (input |prompt )?tokens|maximum (prompt|model|input|sequence) length"
    r"|\b(prompt|inputs?|messages?|conversation|history)( tokens?| length)?"
    r"(( is| are)? too (long|large)| exceeds? (the |its |your )?(max|limit|configured))"
    r"|reduce (the length of|your (prompt|input|message))|input token count"
    r"|prompt token count .{0,40}exceeds|model token limit|exceeds? (the )?token limit"
    r"|max_seq_len|max message tokens|range of input length|total tokens .{0,40}exceed"
    r"|inputs.{1,3}(must have less than|tokens \+)|content.{0,20}string too long"
    r"|number of tokens .{0,40}exceed"
)
_FILTER = re.compile(
    r"content_filter|content_policy|responsibleaipolicy|content management policy"
    r"|content policy|safety system|usage polic(y|ies)|data_?inspection_?failed"
    r"|content exists risk|inappropriate content|considered high risk|input was flagged"
    r"|prohibited_content"
)
_FILTER_STATUSES = {200, 400, 403, 422, 451, 500}
_QUOTA = re.compile(
    r"insufficient_quota|insufficient (balance|credits|funds|quota)|billing_(hard_limit|not_active)"
    r"|out of credits|credit balance|payment required"
)
_KEY = re.compile(r"invalid_api_key|authentication_error|incorrect api key|invalid api key")
_NO_MODEL = re.compile(r"model_not_found|model not found|no such model|unknown model")
_RATE = re.compile(r"rate_limit|rate limit|too_many_requests|too many requests")
_LASTING = re.compile(r"invalid|unsupported|not_found|not found|permission|bad_request")
# What a server cannot read stays so, though some answer with a 500, as llama.cpp does.
_UNREADABLE = re.compile(
    r"unsupported (content|media|image|audio|video|file|input|modalit|message|part)"
    r"|(image|audio|video|file|vision|pdf|media|multi-?modal|modalit)[^.]{0,60}"
    r"(not|n't) (be )?(support|allow|accept|enabl|compiled|avail)"
    r"|(not|n't) (support|accept|allow|have|compiled for)[^.]{0,40}"
    r"(image|audio|video|file|vision|pdf|media|multi-?modal|modalit)"
    r"|not a (multi-?modal|vision)|mmproj|required for (image|audio|video) input"
    r"|(failed|unable|cannot|could not) (to )?(decode|load|parse|process|read|identify)"
    r"[^.]{0,30}(image|audio|video|file|messages)"
    r"|invalid[^.]{0,20}(image|audio|video|base64)|at most 0 (image|audio|video)"
)
# The model wrote a call that the server could not parse: another sample may do.
_RESAMPLED = re.compile(r"tool_use_failed")


def error_from_http(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str,
    now: float,
    url: str | None = None,
) -> ModelError:
    """Return the exception for an answer with an error status.

    Args:
        status: The HTTP status.
        headers: The response's headers, names in lower case.
        body: The response's body.
        model: The model's name, for the message.
        now: Seconds since the epoch, for a Retry-After date without a Date beside it.
        url: The requested URL, for the message of a 404.
    """
    data = json_or(None, body)
    wait = retry_after(headers, now)
    error = _classify(
        status,
        {"message": _plain_text(body)} if data is None else _find(data),
        model=model,
        request_id=request_id(headers),
        body=body[:_BODY_LIMIT].decode("utf-8", "replace") or None,
        retry_after=_wait_in_body(body) if wait is None else wait,
    )
    if isinstance(error, ModelNotFound) and url is not None:
        error.args = (f"{error.message} (requested: {url})",)
    return error


def error_inside(body: Any, *, model: str | None) -> ModelError | None:
    """Return the error that a body of status 200 or a chunk of a stream holds, or None."""
    if not _holds_error(body):
        return None
    error = _find(body)
    status = _status(error.get("code")) or _status(error.get("status")) or 200
    return _classify(status, error, model=model)


def is_transient(error: AgentKitError) -> bool:
    """Return whether another attempt may succeed."""
    match error:
        case QuotaExceeded() | AuthenticationFailed() | ContextLengthExceeded():
            return False
        case ModelHTTPError():
            text = f"{error.code} {error.message}".lower()
            if _UNREADABLE.search(text) or error.status in _LASTING_STATUSES:
                return False
            if error.status == 200:
                # Inside a stream servers rarely say; only a lasting cause can be recognised.
                return not _LASTING.search(text)
            resampled = error.code is not None and _RESAMPLED.search(error.code) is not None
            return resampled or error.status in _RETRIED or error.status >= 500
        case ModelUnreachable() | InvalidResponse():
            return True
        case _:
            return False


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's id of a request, whichever header it is in."""
    return next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds in `retry-after-ms` or Retry-After; in a date, those until then."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return seconds
    if (until := _date(value)) is None:
        return None
    # The server's own clock where it shows it: ours may differ by minutes.
    return max(0.0, until - (_date(headers.get("date")) or now))


def _date(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def _wait_in_body(body: bytes) -> float | None:
    # google.rpc.RetryInfo: {"retryDelay": "17s"}
    match = re.search(rb'"retryDelay"\s*:\s*"([0-9.]+)s"', body)
    return _number(match[1].decode()) if match else None


def _plain_text(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    if "<" in text and ">" in text:
        text = re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", " ", text)
    return " ".join(text.split())[:_BODY_LIMIT]


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and 400 <= value < 600 else None


_HARMLESS = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier")
)


def _holds_error(body: Any) -> bool:
    # Without patterns: each chunk of a stream comes here, and they take longer than reading it.
    if not is_object(body):
        return is_array(body) and bool(body) and bool(as_object(body[0]).get("error"))
    choices = body.get("choices")
    if is_array(choices) and choices and as_object(choices[0]).get("error"):
        return True
    if body.get("object") == "error":
        return True
    if body.keys() <= _HARMLESS:  # almost all are
        return False
    if body.get("error") or body.get("type") == "error":
        return True
    if as_object(body.get("x_groq")).get("error"):
        return True
    described = "detail" in body or "errors" in body or isinstance(body.get("message"), str)
    return described and not choices


def _find(body: Any) -> JsonObject:
    """Return the object that describes the error, with its text under `message`."""
    match body:
        case [first, *_] | {"errors": [first, *_]}:
            return _find(first)
        case {"error": {**error}} if error:
            return {**error, "message": _words(error)}
        case {"error": str(text), **rest}:
            return {**rest, "message": text}
        case {"x_groq": {"error": error}} | {"choices": [{"error": error}, *_]} if error:
            return _find({"error": error})
        case {**error}:
            return {**error, "message": _words(error)}
        case str(text):
            return {"message": text}
        case _:
            return {}


def _words(error: JsonObject) -> str | None:
    text: Any = error.get("message") or error.get("detail") or error.get("msg")
    if is_array(text):  # FastAPI: [{"loc": […], "msg": "…"}]
        text = "; ".join(str(as_object(one).get("msg", one)) for one in text)
    # OpenRouter: the upstream server's own words.
    raw = as_object(error.get("metadata")).get("raw")
    if isinstance(raw, str):
        text = f"{text} ({raw})" if text else raw
    return None if text is None else str(text)


def _classify(status: int, error: JsonObject, *, model: str | None, **details: Any) -> ModelError:
    """Return the exception for a status and a description; `details` are further attributes."""
    reason = error.get("message") or "no reason given"
    codes = [str(v) for key in ("code", "type", "status") if (v := error.get(key))]
    # Some servers repeat the status as the code.
    code = next((one for one in codes if not one.isdigit()), codes[0] if codes else None)
    # `innererror` and its like matter for filters only.
    clue = f"{code} {error.get('type')} {error.get('innererror')} {reason}".lower()
    message = f"{model or 'The model'} answered {_phrase(status)}: {reason[:_BODY_LIMIT]}"
    if _FILTER.search(clue) and status in _FILTER_STATUSES:
        return ModelRefusal(message, model=model, reason="content_filter")
    return _kind(status, clue)(message, model=model, status=status, code=code, **details)


def _phrase(status: int) -> str:
    if status == 200:
        return "with an error inside a response of status 200"
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _kind(status: int, clue: str) -> type[ModelHTTPError]:
    checks = (
        (status not in (401, 402, 403) and _CONTEXT.search(clue), ContextLengthExceeded),
        (status == 402 or _QUOTA.search(clue), QuotaExceeded),
        (status in (401, 403) or _KEY.search(clue), AuthenticationFailed),
        (status == 404 or _NO_MODEL.search(clue), ModelNotFound),
        (status == 429 or (status == 200 and _RATE.search(clue)), RateLimited),
    )
    return next((cls for hit, cls in checks if hit), ModelHTTPError)
