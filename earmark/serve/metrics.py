"""What the server counts, in the format of Prometheus.

Conventions: names start with ``earmark_``; routes are those of the interface, all others count as "other".
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_V1 = ("models", "tag", "events", "embed", "listen")
_OTHERS = ("/", "/healthz", "/metrics", "/openapi.json", "/config.json", "/static")
ROUTES = frozenset((*_OTHERS, *(f"/v1/{name}" for name in _V1)))
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "earmark_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self.latency = Histogram(
            "earmark_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.audio = Counter(
            "earmark_audio_seconds",
            "Seconds of sound that were analysed.",
            ("route",),
            registry=self._registry,
        )
        self.queue = Gauge(
            "earmark_queue_length", "Requests that wait for a worker.", registry=self._registry
        )
        self.active = Gauge(
            "earmark_requests_in_progress", "Requests that have a place.", registry=self._registry
        )
        self.streams = Gauge("earmark_streams", "Live streams that are open.", registry=self._registry)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)


def route_of(path: str) -> str:
    """The route of a path, of a small number of names."""
    if path.startswith("/static/"):
        return "/static"
    return path if path in ROUTES else "other"
