"""What /versions says of proposals is true: whoever believes it finds the endpoint."""

import pytest

from .homeserver import Homeserver

U = "/_matrix/client/unstable"


@pytest.mark.parametrize(
    ("feature", "method", "path"),
    [
        ("org.matrix.simplified_msc3575", "POST", f"{U}/org.matrix.simplified_msc3575/sync"),
        ("org.matrix.msc4140", "GET", f"{U}/org.matrix.msc4140/delayed_events"),
        ("org.matrix.msc4143", "GET", f"{U}/org.matrix.msc4143/rtc/transports"),
        ("org.matrix.msc4306", "GET", f"{U}/io.element.msc4308/thread_subscriptions"),
        ("org.matrix.msc3391", "DELETE", f"{U}/org.matrix.msc3391/user/@alice:test/account_data/x"),
        ("org.matrix.msc3814", "GET", f"{U}/org.matrix.msc3814.v1/dehydrated_device"),
        ("org.matrix.msc3030", "GET", f"{U}/org.matrix.msc3030/rooms/!x:test/timestamp_to_event"),
        ("org.matrix.msc3916.stable", "GET", "/_matrix/client/v1/media/config"),
        ("uk.half-shot.msc2666.query_mutual_rooms", "GET", f"{U}/uk.half-shot.msc2666/user/mutual_rooms"),
        ("uk.tcpip.msc4133", "GET", f"{U}/uk.tcpip.msc4133/profile/@alice:test"),
    ],
)
async def test_features_have_their_endpoints(
    homeserver: Homeserver, feature: str, method: str, path: str
) -> None:
    alice = await homeserver.register("alice")
    versions = (await homeserver.client.get("/_matrix/client/versions")).json
    assert versions["unstable_features"][feature] is True
    answer = await alice.request(method, path, json={})
    assert answer.errcode != "M_UNRECOGNIZED"
    assert answer.status < 500


async def test_capabilities_have_the_old_name_of_profile_fields(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    told = (await alice.get("/_matrix/client/v3/capabilities")).json["capabilities"]
    assert told["uk.tcpip.msc4133.profile_fields"] == told["m.profile_fields"] == {"enabled": True}
