"""A stand-in for the child of llama.cpp: same lines and same HTTP, but no model.

Its first argument says how it loads (`LOADS`). The prompt of a completion is a script,
as `helpers.script` writes it: what the reply is, how its bytes are cut, how it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading

STATE = "cmd_child_to_router:state:"
dropped = threading.Event()  # a client closed its connection in mid-stream
connections: list[int] = []


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def loading(value: float, stages: tuple[str, ...] = ("text_model",)) -> None:
    payload = {"stages": stages, "current": stages[-1], "value": value}
    say(STATE + json.dumps({"state": "loading", "payload": payload}))


def own(**fields: object) -> None:
    say("lmstudio:" + json.dumps(fields))


def fail_with(log: str) -> None:
    sys.stderr.write(log + "\n")
    sys.stderr.flush()
    own(event="failed", message="RuntimeError: Failed to init server")
    sys.exit(1)


def hang() -> None:
    loading(0.0)
    while sys.stdin.buffer.read1():
        pass
    sys.exit(1)


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def normal() -> None:
    for value in (0.0, 0.0, 0.5, 0.25, 1.0):
        loading(value)
    say(STATE + json.dumps({"state": "ready", "payload": {}}))


def noisy() -> None:
    say("something llama.cpp may print one day")
    say(STATE + json.dumps({"state": "loading", "payload": {"stages": []}}))
    say(STATE + json.dumps({"state": "loading", "payload": None}))
    say("x" * 2_000_000)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies() -> None:
    sys.stderr.write("first\n" + "x" * 20_000 + "\nthe last words\n")
    sys.stderr.flush()
    sys.exit(7)


LOADS = {
    "normal": normal,
    "silent": lambda: None,
    "noisy": noisy,
    "hang": hang,
    "stubborn": stubborn,
    "killed": killed,
    "dies": dies,
    "missing": lambda: (own(event="missing", message="No module"), sys.exit(1)),
    "architecture": lambda: fail_with("E unknown model architecture: 'xyz'"),
    "projector": lambda: fail_with("E mismatch between text model and mmproj"),
    "truncated": lambda: fail_with("E tensor data is not within the file bounds"),
    "memory": lambda: fail_with("E mmap failed: Cannot allocate memory"),
    "other": lambda: fail_with("E quantized V cache requires flash_attn"),
    "garbled": lambda: say("lmstudio:{not json"),
    "deaf": lambda: None,
}


def serve(connection: socket.socket, key: str) -> None:
    file = connection.makefile("rwb")
    with contextlib.suppress(OSError), connection:
        while line := file.readline():
            path = line.decode().split()[1]
            headers = {}
            while (header := file.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers.get("content-length", 0)))
            parameter = json.loads(body) if body else None
            if headers.get("authorization") != f"Bearer {key}":
                return reply(file, {"error": {"message": "Invalid API Key"}}, 401)
            if path == "/completion":
                return play(connection, json.loads(parameter["prompt"]))
            content = parameter.get("content") if parameter else None
            if content == "refuse":
                return reply(file, {"error": {"message": "I won't"}}, 400)
            if content == "crash":
                killed()
            reply(file, answer(path, parameter))
            if content == "hang up":
                return None  # as llama.cpp does with idle connections, unannounced
    return None


def answer(path: str, parameter: dict) -> object:
    if path == "/props":
        return {"default_generation_settings": {"n_ctx": 2048}}
    if path == "/slots":
        return [{"speculative": True}, {"speculative": False}]
    if path == "/tokenize":
        return {"tokens": [ord(char) for char in parameter["content"]]}
    if path == "/embedding":
        content = parameter["content"]
        if isinstance(content, str):
            return [{"index": 0, "embedding": [[3.0, 4.0]]}]
        return [{"index": 0, "embedding": [[float(len(content)), float(content[-1])]]}]
    if path == "/dropped":
        return {"dropped": dropped.wait(5)}
    return {"connections": len(connections)}  # /connections


def reply(file, value: object, status: int = 200) -> None:
    body = json.dumps(value).encode()
    file.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    file.write(body)
    file.flush()


def play(connection: socket.socket, script: dict) -> None:
    """Send what a script says, then end as it says."""
    data = bytes.fromhex(script["data"])
    cut = script["cut"] or len(data) or 1
    for start in range(0, len(data), cut):
        connection.sendall(data[start : start + cut])
    if script["end"] == "crash":
        sys.stderr.write("GGML_ASSERT(false) failed\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGABRT)
    if script["end"] == "hold":
        connection.recv(1)
        dropped.set()


def main() -> None:
    key = json.loads(sys.stdin.buffer.readline())["key"]
    LOADS[sys.argv[1]]()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if sys.argv[1] == "deaf":
        listener.close()
    own(event="ready", port=port, gpu_layers=0)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(1)
            threading.Thread(target=serve, args=(connection, key), daemon=True).start()

    if sys.argv[1] != "deaf":
        threading.Thread(target=accept, daemon=True).start()
    while sys.stdin.buffer.read1():
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
