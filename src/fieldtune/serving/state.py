"""How the server does: `/health` for whoever starts and stops it, `/metrics` in Prometheus' form."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fieldtune.serving.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "fieldtune_requests", "Requests for an answer, by how they ended", ["outcome"], registry=registry
        )
        self.prompt_tokens = Counter("fieldtune_prompt_tokens", "Tokens of prompts taken", registry=registry)
        self.answer_tokens = Counter("fieldtune_answer_tokens", "Tokens of answers ended", registry=registry)
        self.first_text = Histogram(
            "fieldtune_first_text_seconds",
            "From a request to the first text of its answer",
            registry=registry,
            buckets=SECONDS,
        )
        self.whole = Histogram(
            "fieldtune_answer_seconds", "From a request to the end of its answer", registry=registry, buckets=SECONDS
        )
        for name, about, read in (
            ("running_requests", "Requests that are being answered", lambda: engine.running),
            ("waiting_requests", "Requests that wait for a place", lambda: engine.waiting),
            ("decode_steps", "Decode steps done; generated tokens by this is the mean batch", lambda: engine.steps),
            ("generated_tokens", "Tokens generated, canceled answers included", lambda: engine.tokens),
            ("reused_prompt_tokens", "Tokens of prompts that an earlier prompt had computed", lambda: engine.reused),
        ):
            Gauge(f"fieldtune_{name}", about, registry=registry).set_function(read)


def health_router(engine: Engine, model: str) -> APIRouter:
    """`/health`: 200 while requests are answered, else 503."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> JSONResponse:
        ok = engine.alive
        content = {"status": "ok" if ok else "down", "model": model}
        return JSONResponse({**content, "running": engine.running, "waiting": engine.waiting}, 200 if ok else 503)

    return router


def metrics_router(metrics: Metrics) -> APIRouter:
    """`/metrics`."""
    router = APIRouter()

    @router.get("/metrics")
    async def read() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router
