"""Messages that a device has got are deleted; where there can be none, nothing is written."""

import asyncio

import pytest

from ranvier.services.sync.clients import Acknowledged


class Writes:
    """A database that notes what it is to write."""

    def __init__(self):
        self.seen = []
        self.some = asyncio.Event()

    async def write(self, fn, *args):
        self.seen.append(args)
        if args == (1, 5):
            self.some.set()
        return 0


@pytest.mark.parametrize(("notes_beginnings", "written"), [(False, [(1, 5)]), (True, [(2, 0), (1, 5)])])
async def test_a_device_that_begins_has_got_nothing(notes_beginnings, written):
    db = Writes()
    acknowledged = Acknowledged(db, lambda txn, device, position: 0, notes_beginnings=notes_beginnings)
    acknowledged.note(1, 5)
    acknowledged.note(2, 0)
    worker = asyncio.create_task(acknowledged.run())
    await db.some.wait()
    worker.cancel()
    assert db.seen == written
