"""What federation has under way, as it is when somebody looks: for /metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from ranvier.services.federation.outbound import Outbound
from ranvier.services.federation.room_queues import RoomQueues


def watch_inbound(registry: CollectorRegistry, queues: RoomQueues) -> None:
    """Count what waits to be taken in."""
    _gauge(
        registry,
        "ranvier_federation_inbound_events",
        "Received events that wait for their room or are being taken in.",
        queues.waiting_count,
    )
    _gauge(
        registry,
        "ranvier_federation_inbound_rooms",
        "Rooms in which received events wait.",
        queues.room_count,
    )


def watch_outbound(registry: CollectorRegistry, outbound: Outbound) -> None:
    """Count what waits to be sent."""
    _gauge(
        registry,
        "ranvier_federation_outbound_events",
        "Events that wait in memory to be sent, once for each server.",
        lambda: outbound.count().waiting_events,
    )
    _gauge(
        registry,
        "ranvier_federation_outbound_sending",
        "Servers to which something is being sent now.",
        lambda: outbound.count().sending,
    )
    _gauge(
        registry,
        "ranvier_federation_outbound_parked",
        "Servers that are left alone for a while because they fail or refuse.",
        lambda: outbound.count().parked,
    )


def _gauge(registry: CollectorRegistry, name: str, text: str, read: Callable[[], float]) -> None:
    Gauge(name, text, registry=registry).set_function(read)
