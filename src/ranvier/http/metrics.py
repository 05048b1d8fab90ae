"""What the process answers, counted, and everything that is counted, served at /metrics.

The registry belongs to the process: `app.build` makes it and hands it to whoever counts.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ranvier.http.endpoint import Api, Auth, Endpoint, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response


class RequestMetrics:
    """Counts answers by operation and status, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "ranvier_http_answers", "Answered requests.", ("operation", "status"), registry=registry
        )
        self._seconds = Histogram(
            "ranvier_http_seconds",
            "From the first byte of a request to its answer; long polls included.",
            ("operation",),
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
            registry=registry,
        )
        self._by_endpoint: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, endpoint: Endpoint, status: int, seconds: float) -> None:
        key = (endpoint.operation, status)
        children = self._by_endpoint.get(key)
        if children is None:
            children = self._by_endpoint[key] = (
                self._answers.labels(endpoint.operation, status),
                self._seconds.labels(endpoint.operation),
            )
        children[0].inc()
        children[1].observe(seconds)


class MetricsEndpoint:
    """GET /metrics, in the text format of Prometheus. Only where the admin API is served."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @endpoint("GET", "/metrics", operation="metrics", auth=Auth.NONE, api=Api.ADMIN, rate=Rate.NONE)
    async def metrics(self, _request: Request) -> Response:
        return Response(content_type=CONTENT_TYPE_LATEST, body=generate_latest(self._registry))
