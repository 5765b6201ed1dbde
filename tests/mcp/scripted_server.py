"""An MCP server of the standard library alone: what it says is in the test's hand, and at once.

    python scripted_server.py FOLDER [ready-made words]

It speaks 2025-06-18 on stdin and stdout. FOLDER/starts gets a line for each start, and
FOLDER/notes what it was sent; FOLDER/description, if it exists, is the description of `echo`.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(sys.argv[1])
PIXEL = "iVBORw0KGgo="
lock = threading.Lock()
answers: dict = {}
cancelled: dict = {}
grown = False


def note(text):
    with open(FOLDER / "notes", "a") as notes:
        notes.write(text + "\n")


def write(**message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def tool(name, properties=None, **more):
    schema = {"type": "object", "properties": properties or {}, "required": [*(properties or {})]}
    return {"name": name, "description": f"The tool {name}.", "inputSchema": schema, **more}


def tools():
    own = FOLDER / "description"
    listed = [
        tool(
            "echo", {"text": {"type": "string", "minLength": 1}}, annotations={"readOnlyHint": True}
        ),
        tool("show"),
        tool("measure"),
        tool("slow", {"steps": {"type": "integer"}}),
        tool("die"),
        tool("ask", {"question": {"type": "string"}}),
        tool("grow"),
        tool("fail"),
        tool("where.am/I"),
        tool("context", {"context": {"type": "string"}, "self": {"type": "string"}}),
        {**tool("broken"), "inputSchema": {"type": "object", "properties": {"x": {"type": 7}}}},
    ]
    if own.exists():
        listed[0]["description"] = own.read_text()
    return listed + ([tool("new")] if grown else [])


def text(words):
    return {"content": [{"type": "text", "text": words}]}


def call(number, name, arguments, token):
    global grown
    match name:
        case "echo":
            return text(arguments["text"])
        case "show":
            blob = {
                "uri": "file:///tmp/report%20a.pdf",
                "mimeType": "application/pdf",
                "blob": "JVBERg==",
            }
            words = {"uri": "note:1", "mimeType": "text/plain", "text": "a note"}
            link = {
                "type": "resource_link",
                "name": "log",
                "uri": "log:1",
                "description": "the log",
            }
            return {
                "content": [
                    {"type": "text", "text": "Here."},
                    {"type": "image", "data": PIXEL, "mimeType": "image/png"},
                    {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"},
                    {"type": "resource", "resource": blob},
                    {"type": "resource", "resource": words},
                    link,
                ]
            }
        case "measure":
            return {**text("21 degrees."), "structuredContent": {"degrees": 21}}
        case "slow":
            for step in range(arguments["steps"]):
                if token is not None:
                    progress = {
                        "progressToken": token,
                        "progress": step,
                        "total": arguments["steps"],
                    }
                    write(
                        method="notifications/progress", params={**progress, "message": "working"}
                    )
                for _ in range(10):
                    if number in cancelled:
                        note("cancelled slow")
                        return None
                    time.sleep(0.01)
            return text("done")
        case "die":
            print("Traceback: /home/somebody/secret/place/main.py", file=sys.stderr)
            print(f"key {os.environ.get('SERVER_KEY')} out of cheese", file=sys.stderr, flush=True)
            os._exit(3)
        case "ask":
            schema = {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            }
            params = {"message": arguments["question"], "requestedSchema": schema}
            answers[number] = waiting = threading.Event()
            write(id=f"ask{number}", method="elicitation/create", params=params)
            waiting.wait(60)
            return text(json.dumps(answers[number, "result"], sort_keys=True))
        case "grow":
            grown = True
            write(method="notifications/tools/list_changed")
            return text("There is one more.")
        case "fail":
            return {**text("No such thing; try echo."), "isError": True}
        case "where.am/I":
            return text(",".join(sorted(os.environ)) + " " + os.getcwd())
        case "context":
            return text(arguments["context"] + arguments["self"])
        case _:
            return text(f"called {name}")


def answer(number, method, params):
    match method:
        case "initialize":
            capabilities = {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}
            info = {"name": "scripted", "version": "1"}
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": capabilities,
                "serverInfo": info,
            }
        case "tools/list":
            note("listed")
            items, start = tools(), int(params.get("cursor", 0))
            result = {"tools": items[start : start + 6]}
            if start + 6 < len(items):
                result["nextCursor"] = str(start + 6)
        case "tools/call":
            token = params.get("_meta", {}).get("progressToken")
            result = call(number, params["name"], params.get("arguments", {}), token)
            if result is None:
                return
        case "resources/list":
            result = {"resources": [{"uri": "note:1", "name": "a note", "mimeType": "text/plain"}]}
        case "resources/read":
            if params["uri"] != "note:1":
                error = {"code": -32002, "message": "Resource not found"}
                write(id=number, error=error)
                return
            result = {"contents": [{"uri": "note:1", "mimeType": "text/plain", "text": "a note"}]}
        case "prompts/list":
            result = {
                "prompts": [{"name": "greet", "arguments": [{"name": "who", "required": True}]}]
            }
        case "prompts/get":
            words = f"Greet {params['arguments']['who']}."
            messages = [
                {"role": "user", "content": {"type": "text", "text": words}},
                {"role": "assistant", "content": {"type": "text", "text": "Hello."}},
            ]
            result = {"messages": messages}
        case _:
            write(id=number, error={"code": -32601, "message": "Method not found"})
            return
    write(id=number, result=result)


with open(FOLDER / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\n")
for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        number = int(str(message["id"]).removeprefix("ask"))
        waiting = answers[number]
        answers[number, "result"] = message.get("result", message.get("error"))
        waiting.set()
    elif message["method"] == "notifications/cancelled":
        cancelled[message["params"]["requestId"]] = True
    elif "id" in message:
        work = (message["id"], message["method"], message.get("params", {}))
        threading.Thread(target=answer, args=work, daemon=True).start()
note("stdin closed")
