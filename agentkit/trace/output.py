"""An agent's output in its trace: the value, or where a model has written just that.

A typed output stands in the trace already, as the JSON text of an answer or of a call. Where
reading that text gives the output, to the type of each number, `agent.end` has its address.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from agentkit.core.spec import Written
from agentkit.errors import InvalidArguments
from agentkit.messages import JsonObject, is_object
from agentkit.redaction import Redactor
from agentkit.schema.repair import load_value
from agentkit.trace.naming import packed

_SCALARS = (str, int, float, type(None))


def output_fields(
    output: Any, written: Written | None, redact: Redactor, plain: object = None
) -> JsonObject:
    """Return the fields of `agent.end` that say what the output is.

    Args:
        output: The output.
        written: Where a model has written it, if it does not come from a function.
        redact: Takes secrets out of what is recorded.
        plain: A text of which that is known to leave all.
    """
    if written is None or isinstance(output, _SCALARS):
        return {"output": packed(output, redact)}
    if not (written.text is plain or _stays(written.text, redact)):
        return {"output": packed(output, redact)}
    if written.place is not None:
        place: JsonObject = {"output_key": written.place[0]} if written.place else {}
        return {"output_at": str(written.at), **place}
    try:
        value = to_json(output, bytes_mode="base64")  # as `packed` has it
        if value == written.text.encode():
            return {"output_at": str(written.at)}
        text = to_json(load_value(written.text)[0])
    except Exception:  # of a serializer of the application's
        return {"output": packed(output, redact)}
    if value == text:
        return {"output_at": str(written.at)}
    if text == b'{"value":%b}' % value:
        return {"output_at": str(written.at), "output_key": "value"}
    return {"output": packed(output, redact)}


def recorded_output(output: Any, written: Written | None, redact: Redactor) -> Any:
    """Return what a reader of the trace would get as the output."""
    fields = output_fields(output, written, redact)
    if written is None or "output" in fields:
        return fields["output"]
    return written_output(written.text, fields.get("output_key"))


def written_output(text: str, key: str | None) -> Any:
    """Return the output in a model's text; of the object there, what stands under a key.

    Raises:
        ValueError: There is none.
    """
    try:
        value, _ = load_value(text)
    except InvalidArguments as error:
        raise ValueError(error.message) from error
    if key is None:
        return value
    if not is_object(value) or key not in value:
        raise ValueError(f"There is no {key!r}.")
    return value[key]


def _stays(text: str, redact: Redactor) -> bool:
    """Whether nothing is taken out of the text; secret fields have their places in the output."""
    return not redact.paths and redact(text) == text
