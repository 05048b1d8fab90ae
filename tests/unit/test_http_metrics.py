"""What is counted comes out in the form that Prometheus reads."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ranvier.http.endpoint import Endpoint
from ranvier.http.metrics import RequestMetrics


def test_answers_by_status_and_duration() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    sync, send = (Endpoint(method="GET", path="/", operation=name) for name in ("sync", "send"))
    for endpoint, status, seconds in (
        (sync, 200, 0.001),
        (sync, 200, 0.02),
        (sync, 401, 99.0),
        (send, 200, 0.5),
    ):
        metrics.answered(endpoint, status, seconds)
    text = generate_latest(registry).decode()
    samples = {
        (
            sample.name,
            *(sample.labels[key] for key in ("operation", "status", "le") if key in sample.labels),
        ): (sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["ranvier_http_answers_total", "sync", "200"] == 2
    assert samples["ranvier_http_answers_total", "sync", "401"] == 1
    assert samples["ranvier_http_seconds_bucket", "sync", "0.001"] == 1
    assert samples["ranvier_http_seconds_bucket", "sync", "0.03"] == 2
    assert samples["ranvier_http_seconds_bucket", "sync", "60.0"] == 2
    assert samples["ranvier_http_seconds_bucket", "sync", "+Inf"] == 3
    assert samples["ranvier_http_seconds_count", "sync"] == 3
    assert abs(samples["ranvier_http_seconds_sum", "sync"] - 99.021) < 1e-9
    assert samples["ranvier_http_seconds_count", "send"] == 1
