"""The program of the child process that serves one .gguf file on a loopback port.

Started by `server` with this file's path, so that nothing of agentkit is imported
here. It reads one JSON line with its configuration from stdin, writes one with its
address to stdout, and ends when stdin does: when its parent closes the pipe, exits,
crashes or is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any


def main() -> None:
    """Serve until the parent is gone."""
    # The parent handles Ctrl-C, and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = json.loads(sys.stdin.buffer.readline())
    sys.path.append(config["packages"])
    try:
        server = serve(config)
    except RuntimeError as error:
        sys.exit(str(error))  # Below llama.cpp's own messages.
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with, args=(config["parent"],), daemon=True).start()
    sys.stdin.buffer.read()
    # Not a normal exit: the server's destructor waits for requests that are still open.
    os._exit(0)


def serve(config: dict[str, Any]) -> Any:
    """Load the model and open the port. Requests need the key, those of web pages too."""
    # By name: its folder is only now on the path, and it has no types.
    llama: Any = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = config["path"]
    params.model_alias = {config["name"]}
    params.n_ctx = config["context"]
    # One at a time: with several, answers at temperature 0 depend on the other requests.
    params.n_parallel = 1
    params.cache_ram_mib = 256
    threads = _threads()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.api_keys = [config["key"]]
    params.cors_origins = params.cors_methods = params.cors_headers = ""
    params.cors_credentials = False
    params.ui = params.endpoint_slots = False
    params.verbosity = 1  # Errors only; they go to the parent's log.
    return llama.Server(params)


def _threads() -> int:
    """Return half of the CPUs, which is the number of cores where each counts as two.

    llama.cpp's threads spin while they wait for one another. One per CPU is half as fast
    again on an idle machine, but was fifteen times slower on a busy one.
    """
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(usable // 2, 8))


def _end_with(parent: int) -> None:
    """End when the parent does, even if a fork of it holds the other end of our stdin."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main()
