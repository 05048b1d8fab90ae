"""Commands that administer rooms, media and registration tokens, beside a running server."""

import asyncio
import io
import re
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from ranvier.app.cli import main

from .administrators import create_room, join, send
from .homeserver import Homeserver, User, eventually

MEDIA = "/_matrix/media/v3"


class Shell:
    """Runs commands on a homeserver's database."""

    def __init__(self, homeserver: Homeserver, data_dir: Path) -> None:
        config = homeserver.foundation.ports.config
        self._environment = {
            "RANVIER__SERVER_NAME": config.server_name,
            "RANVIER__DATA_DIR": str(data_dir),
            "RANVIER__DATABASE__URL": config.database.url,
        }

    async def run(self, *args: str) -> str:
        """What it prints. It must succeed."""
        code, output = await self.end(*args)
        assert code == 0, output
        return output

    async def end(self, *args: str) -> tuple[int, str]:
        """Exit code and output."""
        result = await asyncio.to_thread(CliRunner().invoke, main, args, env=self._environment)
        return result.exit_code, result.output


async def test_rooms(homeserver: Homeserver, alice: User, bob: User, carol: User, tmp_path: Path) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    tea = await create_room(alice, name="Tea", preset="public_chat")
    await create_room(alice, name="Coffee")
    await join(bob, tea)
    assert (await shell.run("room", "list", "--search", "tea")) == f"{tea}\t2/2\tTea\n"
    assert [line.split("\t")[2] for line in (await shell.run("room", "list")).splitlines()] == [
        "Coffee",
        "Tea",
    ]
    shown = dict(line.split("\t", 1) for line in (await shell.run("room", "show", tea)).splitlines())
    assert (shown["room_id"], shown["creator"], shown["joined_members"]) == (tea, alice.user_id, "2")
    assert "blocked_by" not in shown

    await shell.run("room", "block", tea)
    assert "blocked_by\t@:test\n" in await shell.run("room", "show", tea)
    assert (await carol.post(f"/_matrix/client/v3/rooms/{tea}/join", {})).status == 403
    await shell.run("room", "block", tea, "--undo")
    assert (await carol.post(f"/_matrix/client/v3/rooms/{tea}/join", {})).status == 200


async def test_a_room_is_purged_by_the_server_that_runs(
    homeserver: Homeserver, alice: User, tmp_path: Path
) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    room_id = await create_room(alice, name="Tea")
    await send(alice, room_id, "hello")
    begun = await shell.run("room", "purge", room_id, "--block")
    task_id = begun.split("\t")[0]

    async def is_over() -> bool:
        return f"{task_id}\tcomplete" in await shell.run("room", "purges", room_id)

    await eventually(is_over)
    assert await shell.run("room", "list") == ""
    code, output = await shell.end("room", "show", room_id)
    assert (code, len(output.splitlines())) == (1, 1)
    assert (await alice.get("/_matrix/client/v3/joined_rooms")).json == {"joined_rooms": []}


async def test_faults_of_rooms_are_a_line(homeserver: Homeserver, tmp_path: Path) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    for args in (("show", "nonsense"), ("show", "!no:test"), ("purge", "!no:test"), ("block", "nonsense")):
        code, output = await shell.end("room", *args)
        assert (code, len(output.splitlines())) == (1, 1), args
    code, _ = await shell.end("room", "purge", "!no:test", "--message", "gone")
    assert code == 2


async def _upload(user: User, color: str) -> str:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(out, "PNG")
    answer = await user.request(
        "POST", f"{MEDIA}/upload", body=out.getvalue(), headers={"Content-Type": "image/png"}
    )
    assert answer.status == 200, answer.body
    return str(answer.json["content_uri"])


async def test_media(homeserver: Homeserver, alice: User, tmp_path: Path) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    red, blue = await _upload(alice, "red"), await _upload(alice, "blue")

    async def status(uri: str) -> int:
        return (await alice.get(f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}")).status

    assert re.fullmatch(rf"\d+\t2\t{alice.user_id}\n", await shell.run("media", "usage"))
    assert f"user_id\t{alice.user_id}\n" in await shell.run("media", "show", red)
    assert await shell.run("media", "quarantine", red) == "1 hidden\n"
    assert (await status(red), await status(blue)) == (404, 200)
    assert await shell.run("media", "release", red) == "1 shown\n"
    assert await status(red) == 200
    assert await shell.run("media", "quarantine", alice.user_id) == "2 hidden\n"
    await shell.run("media", "delete", blue)
    assert await status(blue) == 404
    assert (await shell.end("media", "show", blue))[0] == 1
    assert (await shell.end("media", "show", "nonsense"))[0] == 1
    pruned = await shell.run("media", "prune", "--unused-days", "30", "--own")
    assert pruned == "0 copies deleted\n0 uploads deleted\n"


async def test_registration_tokens(homeserver: Homeserver, tmp_path: Path) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    token = (await shell.run("token", "new", "--uses", "3", "--days", "2")).strip()
    listed = await shell.run("token", "list")
    assert re.fullmatch(rf"{token}\t0/3\t20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\n", listed)
    answer = await homeserver.client.get(
        "/_matrix/client/v1/register/m.login.registration_token/validity", token=token
    )
    assert answer.json == {"valid": True}
    await shell.run("token", "delete", token)
    assert await shell.run("token", "list") == ""
    assert (await shell.end("token", "delete", token))[0] == 1


async def test_names_of_rooms_do_nothing_to_the_terminal(
    homeserver: Homeserver, alice: User, tmp_path: Path
) -> None:
    shell = Shell(homeserver, tmp_path / "data")
    room_id = await create_room(alice, name="\x1b]0;Tea\x07 ü\n!else:test\t9/9\u202e")
    line = f"{room_id}\t1/1\t\\x1b]0;Tea\\x07 ü\\n!else:test\\t9/9\\u202e\n"
    assert await shell.run("room", "list") == line
    assert "name\t\\x1b]0;Tea" in await shell.run("room", "show", room_id)
