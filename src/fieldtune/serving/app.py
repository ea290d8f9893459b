"""The server's application: routers behind one key, errors in OpenAI's form, health and metrics.

A part of the API is a FastAPI router given to `make_app`; it brings no checks of its own for keys, sizes or hosts.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

log = logging.getLogger("fieldtune")

LARGEST_BODY = 8 * 2**20  # bytes
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]


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

    app = FastAPI(title="fieldtune", docs_url=None, redoc_url=None, max_body_size=LARGEST_BODY)
    for router in open_routers:
        app.include_router(router)
    for router in routers:
        app.include_router(router, dependencies=[Depends(has_key)] if key else [])
    if not key:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, host], www_redirect=False)
    app.add_exception_handler(ApiError, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)
    return app


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
    """What the framework refuses: an unknown address, a wrong method, a body that is too large."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return await _said(request, ApiError(error.status_code, message))


async def _fault(request: Request, error: Exception) -> JSONResponse:
    """The traceback is in the server's log, not in the answer."""
    return await _said(request, ApiError(500, "the server failed; its log says why", kind="server_error"))
