"""`ranvier room`: what administrators do to rooms from the machine's own side."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click
import msgspec

from ranvier.app.administer import Desk, at_desk
from ranvier.app.commands import config_option, load, mendable, tell
from ranvier.core.identifiers import parse_room_id
from ranvier.io.randomness import system_randomness
from ranvier.services.administration.deletion import DeletionOrders, DeletionWish
from ranvier.services.administration.rooms import ORDERS, RoomFilter, RoomInfo, Rooms
from ranvier.services.administration.tasks import DELETE_ROOM, Tasks
from ranvier.services.rooms.presenting import Presenting
from ranvier.store.tables.state_nodes import NodeCache

PAGE: Final = 500


@click.group(short_help="Rooms.")
def room() -> None:
    """Rooms; works also while the server is not running."""


@room.command("list", short_help="List rooms: id, members, name or alias.")
@config_option
@click.option("--search", metavar="TEXT", help="Only rooms with this in their name, alias or id.")
@click.option("--order", type=click.Choice(ORDERS), default="name", show_default=True)
@mendable
def list_rooms(file: Path | None, search: str | None, order: str) -> None:
    """List rooms: id, members of this server and all, name or alias."""

    async def show(desk: Desk) -> None:
        async for one in _list_all(_rooms(desk), RoomFilter(search_term=search), order):
            members = f"{one.joined_local_members}/{one.joined_members}"
            tell(one.room_id, members, one.name or one.canonical_alias or "")

    at_desk(load(file, {}), show)


@room.command("show")
@config_option
@click.argument("room_id")
@mendable
def show_room(file: Path | None, room_id: str) -> None:
    """Show what is known of a room."""

    async def show(desk: Desk) -> None:
        rooms, name = _rooms(desk), parse_room_id(room_id)
        info, details = await rooms.get(name)
        known = msgspec.structs.asdict(info) | msgspec.structs.asdict(details)
        known["blocked_by"] = await rooms.find_blocker(name)
        for field, value in known.items():
            if value is not None:
                tell(field, value)

    at_desk(load(file, {}), show)


@room.command("block", short_help="Let nobody of this server enter a room.")
@config_option
@click.argument("room_id")
@click.option("--undo", is_flag=True, help="The reverse: it can be entered again.")
@mendable
def block_room(file: Path | None, room_id: str, undo: bool) -> None:
    """Let nobody of this server enter a room, which need not be known here."""

    async def block(desk: Desk) -> None:
        await _rooms(desk).block(desk.requester, parse_room_id(room_id), is_blocked=not undo)

    at_desk(load(file, {}), block)


@room.command("purge", short_help="Leave a room, and delete all that is known of it.")
@config_option
@click.argument("room_id")
@click.option("--block", is_flag=True, help="Nobody of this server can enter it again.")
@click.option(
    "--message", metavar="TEXT", help="Said in a new room to which everybody is brought. Needs --by."
)
@click.option("--by", metavar="USER", help="The user of this server who makes the new room.")
@click.option("--force", is_flag=True, help="Also if somebody cannot be made to leave.")
@mendable
def purge_room(
    file: Path | None, room_id: str, block: bool, message: str | None, by: str | None, force: bool
) -> None:
    """Let everybody of this server leave a room, and delete all that is known of it.

    A running server does it within seconds, or the next one that starts.
    """
    if message is not None and by is None:
        raise click.UsageError("--message needs --by")

    async def purge(desk: Desk) -> None:
        tasks = Tasks(desk.db, desk.clock, system_randomness())
        orders = DeletionOrders(desk.db, desk.config.name, desk.clock, tasks)
        wish = DeletionWish(block=block, message=message, new_room_user_id=by, force_purge=force)
        task_id = await orders.start(desk.requester, parse_room_id(room_id), wish)
        tell(task_id, f"begun: `ranvier room purges {room_id}` tells how far it is")

    at_desk(load(file, {}), purge)


@room.command("purges", short_help="Tell how far the deletions of a room are.")
@config_option
@click.argument("room_id")
@mendable
def list_purges(file: Path | None, room_id: str) -> None:
    """Tell how far the deletions of a room are, those of the last week."""

    async def show(desk: Desk) -> None:
        tasks = Tasks(desk.db, desk.clock, system_randomness())
        for task in await tasks.list_of(parse_room_id(room_id), DELETE_ROOM):
            tell(task.task_id, task.status.value, task.error or "")

    at_desk(load(file, {}), show)


async def _list_all(rooms: Rooms, wanted: RoomFilter, order: str) -> AsyncIterator[RoomInfo]:
    offset = 0
    while True:
        page = await rooms.list_page(wanted, order, backwards=False, limit=PAGE, offset=offset)
        for one in page.rooms:
            yield one
        offset += PAGE
        if offset >= page.total:
            return


def _rooms(desk: Desk) -> Rooms:
    return Rooms(desk.db, desk.interner, desk.clock, Presenting(NodeCache()))
