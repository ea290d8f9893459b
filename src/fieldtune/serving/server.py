"""`fieldtune serve`: one run behind an HTTP address until a signal ends it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any

from fieldtune.errors import UserError
from fieldtune.runs import find_run

KEY = "FIELDTUNE_API_KEY"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """run: a folder or `latest`. system: tuned or base. device: cpu or gpu. port 0: a free one.

    batch: answers decoded at once. queue: requests that may wait besides, more are refused. reuse: tokens of earlier
    prompts whose keys and values are kept, 0 for none.
    """

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    system: str = "tuned"
    device: str = "cpu"
    batch: int = 8
    queue: int = 64
    reuse: int = 4096


def serve(options: ServeOptions, more: Callable[[Any], Sequence[Any]] = lambda service: ()) -> None:
    """Serve until SIGTERM or Ctrl-C, which lets running answers end; a second Ctrl-C does not.

    more: makes further routers of the `Service`. `UserError` before anything is loaded if the key, the run or the port
    is not there.
    """
    key = _key(options.host)
    find_run(Path("outputs"), options.run)
    listening = _listen(options.host, options.port)
    try:
        import uvicorn

        from fieldtune.serving.app import make_app
        from fieldtune.serving.chat_api import Service, chat_router
        from fieldtune.serving.state import Metrics, health_router, metrics_router
    except ModuleNotFoundError as error:
        raise UserError(f"fieldtune serve needs {error.name}: pip install 'fieldtune[serve]'") from None
    from fieldtune.serving.engine import Engine
    from fieldtune.serving.predictor import Predictor

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    predictor = Predictor(options.run, device=options.device, system=options.system)
    name = predictor.config.name + ("-base" if options.system == "base" else "")
    context = predictor.config.model.context_length
    limits = {"context": context, "slots": options.batch, "queue": options.queue, "reuse": options.reuse}
    with listening, predictor.model() as model, Engine(model, predictor.tokenizer, **limits) as engine:
        service = Service(name, predictor, engine, Metrics(engine))
        routers = [chat_router(service), metrics_router(service.metrics), *more(service)]
        app = make_app(routers, [health_router(engine, name)], key=key, host=options.host)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        host, port = listening.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"{name} is served at http://{address}/v1 (Ctrl-C ends)", flush=True)
        server.run(sockets=[listening])


def _end(number: int, frame: FrameType | None) -> None:
    """uvicorn raises the signal again once the last answer is out: the status is a shell's for it."""
    sys.exit(128 + number)


def _key(host: str) -> str:
    """The key callers must give; `UserError` if there must be one and is not."""
    key = os.environ.get(KEY, "")
    if key and (key != key.strip() or not key.isascii()):
        raise UserError(f"{KEY} holds blanks at an end or letters that a header cannot carry; give another key")
    if not key and not is_loopback(host):
        raise UserError(f"host={host} is open to other machines, so callers need a key: set {KEY}, or give 127.0.0.1")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than localhost is not trusted to stay what it is."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A socket at the address, before the model is loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UserError(f"{host} port {port} cannot be used ({error.strerror}); give another port= or host=") from None
    return listening
