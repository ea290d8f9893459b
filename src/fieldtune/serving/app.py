"""The server's application: routers behind one key, errors in OpenAI's form, health and metrics.

A part of the API is a FastAPI router given to `make_app`; it brings no checks of its own for keys, sizes or hosts.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("fieldtune")

LARGEST_BODY = 8 * 2**20  # bytes
TOO_LARGE = f"the body has more than {LARGEST_BODY // 2**20} MiB"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class ApiError(Exception):
    """An error that the caller sees. param: the field that is wrong. code: a word for programs."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", param: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param or None, "code": code or None}}


def make_app(
    routers: Sequence[APIRouter], open_routers: Sequence[APIRouter] = (), *, key: str = "", host: str = "localhost"
) -> FastAPI:
    """An application of routers that need the key, and of some that do not.

    key: what callers give as bearer token. Without one only requests for `host` or a loopback name are answered, so
    that no web page can reach the server through a name of its own.
    """

    def has_key(request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared as bytes and in a time that does not depend on where they differ.
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            raise ApiError(401, "the API key is missing or wrong; send it as bearer token", code="invalid_api_key")

    app = FastAPI(title="fieldtune", docs_url=None, redoc_url=None)
    for router in open_routers:
        app.include_router(router)
    for router in routers:
        app.include_router(router, dependencies=[Depends(has_key)] if key else [])
    app.add_middleware(Gate, hosts=() if key else (*LOOPBACK_NAMES, host))
    app.add_exception_handler(ApiError, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)
    return app


class Gate:
    """Refuses what is not for the application behind it: a body that is too large, another host's name. ASGI.

    hosts: the names that are answered; empty: any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        problem = self._problem(Headers(scope=scope))
        if problem is not None:
            return await JSONResponse(problem.body, problem.status)(scope, receive, send)
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:  # of a caller who did not say how much would come
                raise HTTPException(413, TOO_LARGE)
            return message

        return await self._app(scope, counted, send)

    def _problem(self, headers: Headers) -> ApiError | None:
        name = _host_name(headers.get("host", ""))
        if self._hosts and name not in self._hosts:
            allowed = ", ".join(dict.fromkeys(self._hosts))
            return ApiError(400, f"the host {name!r} is not answered here; there are: {allowed}", code="wrong_host")
        length = headers.get("content-length", "")
        return ApiError(413, TOO_LARGE) if length.isdecimal() and int(length) > LARGEST_BODY else None


def _host_name(header: str) -> str:
    """The name in a Host header, without the port; empty if there is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


async def _said(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first thing that is wrong with a body."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "extra_forbidden":
        message = f"{place} is not supported"
    elif first["type"] == "json_invalid":
        place, message = "", f"the body is not JSON ({first.get('ctx', {}).get('error', first['msg'])})"
    else:
        message = f"{place or 'the body'}: {first['msg']}"
    return await _said(request, ApiError(400, message, param=place))


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What is refused by others: an unknown address, a wrong method, a body that turns out too large."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return await _said(request, ApiError(error.status_code, message))


async def _fault(request: Request, error: Exception) -> JSONResponse:
    """The traceback is in the server's log, not in the answer."""
    return await _said(request, ApiError(500, "the server failed; its log says why", kind="server_error"))
