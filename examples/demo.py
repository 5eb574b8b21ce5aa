"""Serves the demo: `python examples/demo.py`, or `make demo`."""

import contextlib
import socket

import uvicorn
from app import app

HOST = "127.0.0.1"
PORT = 8000


def listen() -> socket.socket:
    """Listens on the usual port or, where that is taken, on any free one."""
    # Both need `listen` and not only `bind`, or two demos could bind the same port.
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))


def main() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
        taken = "" if port == PORT else f"Port {PORT} is taken. "
        print(f"{taken}Serving http://{HOST}:{port} (Ctrl-C stops it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        # uvicorn raises the Ctrl-C that it stopped for once more when it is done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])


if __name__ == "__main__":
    main()
