"""What is said below /.well-known/matrix is what is configured, and nothing where nothing is."""

from ranvier.app.config import SupportConfig

from .homeserver import PASSWORD

SUPPORT = "/.well-known/matrix/support"


async def test_nobody_is_named_unless_configured(homeserver):
    answer = await homeserver.client.get(SUPPORT)
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_who_is_configured_is_named(start_homeserver):
    support = SupportConfig(
        page="https://example.org/help", admin_matrix_id="@admin:example.org", security_email="s@example.org"
    )
    homeserver = await start_homeserver(support=support)
    answer = await homeserver.client.get(SUPPORT)
    assert answer.json == {
        "contacts": [
            {"role": "m.role.admin", "matrix_id": "@admin:example.org"},
            {"role": "m.role.security", "email_address": "s@example.org"},
        ],
        "support_page": "https://example.org/help",
    }


async def test_clients_are_told_where_the_server_is(start_homeserver):
    homeserver = await start_homeserver(public_base_url="https://matrix.example.org/")
    told = {"m.homeserver": {"base_url": "https://matrix.example.org/"}}
    assert (await homeserver.client.get("/.well-known/matrix/client")).json == told
    await homeserver.register("alice")
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
    }
    answer = await homeserver.client.post("/_matrix/client/v3/login", body)
    assert answer.json["well_known"] == told
    assert (await homeserver.user(answer.json).get("/_matrix/client/v3/account/whoami")).status == 200
