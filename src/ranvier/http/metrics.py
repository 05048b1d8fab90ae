"""What the process answers, counted, and everything that is counted, served at /metrics.

The registry belongs to the process: `app.build` makes it and hands it to whoever counts.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ranvier.http.endpoint import Api, Auth, Endpoint, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response

BOUNDS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)


class _Answers:
    """The answers of one operation: by status, and by how long they took. Event loop only, so without locks."""

    __slots__ = ("by_duration", "by_status", "seconds")

    def __init__(self) -> None:
        self.by_status: defaultdict[int, int] = defaultdict(int)
        self.by_duration = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0


class RequestMetrics(Collector):
    """Counts answers by operation and status, and how long they took. What Prometheus makes of that is put
    together when somebody asks.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers: defaultdict[str, _Answers] = defaultdict(_Answers)
        registry.register(self)

    def answered(self, endpoint: Endpoint, status: int, seconds: float) -> None:
        """Called for every request: costs a few additions."""
        answers = self._answers[endpoint.operation]
        answers.by_status[status] += 1
        answers.by_duration[bisect_left(BOUNDS_S, seconds)] += 1
        answers.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        counts = CounterMetricFamily(
            "ranvier_http_answers", "Answered requests.", labels=("operation", "status")
        )
        durations = HistogramMetricFamily(
            "ranvier_http_seconds",
            "From the first byte of a request to its answer; long polls included.",
            labels=("operation",),
        )
        for operation, answers in self._answers.items():
            for status, count in answers.by_status.items():
                counts.add_metric((operation, str(status)), count)
            names = (*map(floatToGoString, BOUNDS_S), "+Inf")
            buckets = list(zip(names, accumulate(answers.by_duration), strict=True))
            durations.add_metric((operation,), buckets, answers.seconds)
        yield counts
        yield durations


class MetricsEndpoint:
    """GET /metrics, in the text format of Prometheus. Only where the admin API is served."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @endpoint("GET", "/metrics", operation="metrics", auth=Auth.NONE, api=Api.ADMIN, rate=Rate.NONE)
    async def metrics(self, _request: Request) -> Response:
        return Response(content_type=CONTENT_TYPE_LATEST, body=generate_latest(self._registry))
