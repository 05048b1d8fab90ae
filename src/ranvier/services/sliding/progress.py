"""What a client knows that has an answer. Pure functions."""

from collections.abc import Mapping

import msgspec

from ranvier.services.sliding.extensions import Circumstances, Progress
from ranvier.services.sliding.planning import left_behind
from ranvier.services.sliding.request import Extensions
from ranvier.services.sliding.told import ROOM_EXTENSIONS, Knowledge, Told


def next_knowledge(at: Circumstances, progress: Progress, extensions: Extensions) -> Knowledge:
    """The knowledge that follows. Rooms in which nothing happened are not touched."""
    return Knowledge(
        0,
        at.now,
        _next_rooms(at, progress),
        progress.account_data_upto,
        progress.device_lists_upto,
        progress.to_device_upto,
        progress.in_scope,
        at.shown,
        extensions,
        progress.subscriptions_upto,
    )


def _next_rooms(at: Circumstances, progress: Progress) -> Mapping[int, Told]:
    rooms: Mapping[int, Told] = {} if at.knowledge is None else at.knowledge.rooms
    position = 0 if at.knowledge is None else at.knowledge.position
    touched = at.touched.every
    updates = left_behind(rooms, at.shown.wanted, touched, at.touched.moved, position)
    updates.update({nid: one.told for nid, one in at.read.items()})
    concerned = {*at.read, *(nid for nid in touched if nid in at.shown.wanted)}
    for extension, scope in progress.scopes.items():
        concerned.update(
            nid for nid in scope if (told := rooms.get(nid)) is not None and not told.extensions & extension
        )
    for nid in concerned:
        told = updates.get(nid) or rooms.get(nid)
        if told is not None:
            has = _extensions(told.extensions, nid, progress, is_old=nid in touched or nid in at.read)
            if has != told.extensions:
                updates[nid] = msgspec.structs.replace(told, extensions=has)
    return {**rooms, **updates} if updates else rooms


def _extensions(has: int, nid: int, progress: Progress, *, is_old: bool) -> int:
    """Which extensions' data of a room the client has. `is_old`: what it had may not be right any more."""
    for extension in ROOM_EXTENSIONS:
        if nid in progress.scopes.get(extension, ()):
            has |= extension
        elif is_old:
            has &= ~extension
    return has
