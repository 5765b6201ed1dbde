"""The chat-completions codec, pure: values to bytes and bytes to values.

    ModelRequest ──encode_request──▶ body ──▶ server ──▶ body ──decode_response──▶ ModelResponse
                                                   └───▶ chunks ──StreamFold──────▶ the same

The three halves are in `encode.py`, `decode.py` and `stream.py`; this is the
one place to import them from.
"""

from agentkit.models.chat.decode import decode_response
from agentkit.models.chat.encode import encode_request
from agentkit.models.chat.parameters import Note, adapt_settings
from agentkit.models.chat.stream import EventDecoder, StreamFold

__all__ = [
    "EventDecoder",
    "Note",
    "StreamFold",
    "adapt_settings",
    "decode_response",
    "encode_request",
]
