"""Pages that show a run in a browser.

    agentkit.viewer.write("run.html", "run.jsonl")

`agentkit view run.jsonl` does the same from the command line. A page is one file: it opens
from anywhere, loads nothing, and sends nothing.

How a page is filled. `records.py` turns a trace into records, small JSON objects whose table
stands there; `page` packs them into the page's data block. A server that follows a run sends
the same records instead: it serves `assembly.document(title, "", attributes={"data-stream":
URL}, connect="'self'")`, and at the URL an event stream (`text/event-stream`) in which each
message's data is a JSON array of records. First `words(…)` and all of `records(trace)`; then,
when the file has grown, those of `records(Trace.load(path))` whose `line_of` was not sent
before. An event named `end` says that the run is over. A record replaces the one with the
same place, so sending one twice does no harm.

In the script, `boot(source)` of `assets/main.js` gets a `Source` (`assets/source.js`):
`batches`, an async iterable of arrays of records, and `decide(at, decision)`, which is there
only where calls that wait can be decided about from the page.
"""

from __future__ import annotations

from agentkit.viewer.page import page, write

__all__ = ["page", "write"]
