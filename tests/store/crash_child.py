"""Writes as fast as it can, and prints each position once its commit was acknowledged, until it is killed."""

import asyncio
import os
import sys

from ranvier.store.connect import open_database
from ranvier.store.database import Database, WriteTxn


def pair(txn: WriteTxn) -> int:
    first, second = txn.next_position(), txn.next_position()
    txn.execute("INSERT INTO crashed (id, other) VALUES (:id, :other)", id=first, other=second)
    txn.execute("INSERT INTO crashed (id, other) VALUES (:id, :other)", id=second, other=first)
    return second


async def write_forever(database: Database) -> None:
    while True:
        position = await database.write(pair)
        os.write(1, f"{position}\n".encode())


async def main(url: str) -> None:
    database = await open_database(url)
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(write_forever(database))


asyncio.run(main(sys.argv[1]))
