"""`ranvier media`: what administrators do to files from the machine's own side.

Rows go at once; a running server deletes the files that nothing refers to any more, or the next one that starts.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final

import click
import msgspec

from ranvier.app.administer import Desk, at_desk
from ranvier.app.commands import config_option, load, mendable, tell
from ranvier.core.identifiers import parse_mxc, parse_room_id, parse_user_id
from ranvier.services.media.accounting import MediaAccounting, UsageQuery
from ranvier.services.media.deleting import MediaDeletion
from ranvier.services.media.moderating import MediaModeration

USERS: Final = 50


@click.group(short_help="Files.")
def media() -> None:
    """Files; works also while the server is not running."""


@media.command("usage")
@config_option
@click.option("--users", type=click.IntRange(1), default=USERS, show_default=True, help="How many are shown.")
@mendable
def show_usage(file: Path | None, users: int) -> None:
    """Show whose files take most: bytes, files, user."""

    async def show(desk: Desk) -> None:
        query = UsageQuery(order="media_length", backwards=True, limit=users, offset=0)
        for one in (await MediaAccounting(desk.db, desk.interner).list_usage(query)).users:
            tell(one.media_length, one.media_count, one.user_id)

    at_desk(load(file, {}), show)


@media.command("show")
@config_option
@click.argument("uri")
@mendable
def show_medium(file: Path | None, uri: str) -> None:
    """Show what is known of a file: mxc://SERVER/ID."""

    async def show(desk: Desk) -> None:
        info = await MediaAccounting(desk.db, desk.interner).describe(*parse_mxc(uri))
        for field, value in msgspec.structs.asdict(info).items():
            if value is not None:
                tell(field, value)

    at_desk(load(file, {}), show)


@media.command("quarantine", short_help="Hide files and all their copies.")
@config_option
@click.argument("what")
@mendable
def quarantine(file: Path | None, what: str) -> None:
    """Hide files and all their copies: WHAT is mxc://SERVER/ID, a user id (their uploads) or a room id."""

    async def hide(desk: Desk) -> None:
        moderation = MediaModeration(desk.db, desk.interner)
        if what.startswith("@"):
            count = await moderation.quarantine_user(desk.requester, parse_user_id(what))
        elif what.startswith("!"):
            count = await moderation.quarantine_room(desk.requester, parse_room_id(what))
        else:
            count = await moderation.quarantine(desk.requester, *parse_mxc(what))
        click.echo(f"{count} hidden")

    at_desk(load(file, {}), hide)


@media.command("release")
@config_option
@click.argument("uri")
@mendable
def release(file: Path | None, uri: str) -> None:
    """Show a file again that was hidden, and its copies."""

    async def show(desk: Desk) -> None:
        count = await MediaModeration(desk.db, desk.interner).release(*parse_mxc(uri))
        click.echo(f"{count} shown")

    at_desk(load(file, {}), show)


@media.command("delete")
@config_option
@click.argument("uri")
@mendable
def delete(file: Path | None, uri: str) -> None:
    """Delete a file: mxc://SERVER/ID."""

    async def forget(desk: Desk) -> None:
        await MediaDeletion(desk.db, desk.interner, desk.clock).delete(*parse_mxc(uri))

    at_desk(load(file, {}), forget)


@media.command("prune", short_help="Delete files that nobody looked at for long.")
@config_option
@click.option(
    "--unused-days", type=click.IntRange(1), required=True, help="That nobody looked at for so long."
)
@click.option("--own", is_flag=True, help="Uploads of this server's users, too: nobody has them then.")
@mendable
def prune(file: Path | None, unused_days: int, own: bool) -> None:
    """Delete copies of other servers' files; with --own also uploads, but for pictures of users and rooms."""

    async def forget(desk: Desk) -> None:
        deletion = MediaDeletion(desk.db, desk.interner, desk.clock)
        before_ms = desk.clock.now_ms() - timedelta(days=unused_days) // timedelta(milliseconds=1)
        click.echo(f"{await deletion.purge_copies(before_ms)} copies deleted")
        if own:
            deleted = await deletion.delete_old(before_ms, 0, keep_avatars=True)
            click.echo(f"{deleted.total} uploads deleted")

    at_desk(load(file, {}), forget)
