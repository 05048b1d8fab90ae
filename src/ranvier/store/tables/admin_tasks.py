"""What administrators set going and what came of it.

Table: admin_tasks. Owner: services.administration. Growth: one row a task, forgotten some time after its end.
Index -> query: UNIQUE task_id -> one; by_resource -> those of a room or user; by_time -> which are old.

The work itself is a job (`jobs`), whose key is the task id: the row here stays when the job is done.
"""

from enum import Enum
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, Row, WriteTxn

DELETE_ROOM: Final = "shutdown_and_purge_room"
PURGE_HISTORY: Final = "purge_history"
REDACT_USER: Final = "redact_all_events"
"""Actions, as Synapse calls them."""


class Status(Enum):
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    COMPLETE = "complete"
    FAILED = "failed"


class AdminTask(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    action: str
    resource_id: str
    status: Status
    requested_by: str
    wish: bytes  # JSON
    result: bytes  # JSON
    error: str | None
    changed_ms: int


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None: whichever."""

    action: str | None = None
    resource_id: str | None = None
    status: Status | None = None
    changed_before_ms: int | None = None


_COLUMNS: Final = "task_id, action, resource_id, status, requested_by, wish, result, error, changed_ms"
_INSERT: Final = f"""
    INSERT INTO admin_tasks (task_nid, {_COLUMNS})
    VALUES (:task_nid, :task_id, :action, :resource_id, :status, :requested_by, :wish, :result, :error, :changed_ms)
"""  # noqa: S608
_FIND: Final = f"SELECT {_COLUMNS} FROM admin_tasks WHERE task_id = :task_id"  # noqa: S608
_LIST: Final = f"""
    SELECT {_COLUMNS} FROM admin_tasks
    WHERE (CAST(:action AS TEXT) IS NULL OR action = :action)
        AND (CAST(:resource_id AS TEXT) IS NULL OR resource_id = :resource_id)
        AND (CAST(:status AS TEXT) IS NULL OR status = :status)
        AND (CAST(:before_ms AS BIGINT) IS NULL OR changed_ms < :before_ms)
    ORDER BY task_nid LIMIT :limit
"""  # noqa: S608
_OF_RESOURCE: Final = f"""
    SELECT {_COLUMNS} FROM admin_tasks WHERE resource_id = :resource_id AND action = :action ORDER BY task_nid
"""  # noqa: S608
_CHANGE: Final = """
    UPDATE admin_tasks SET status = :status, result = :result, error = :error, changed_ms = :now_ms
    WHERE task_id = :task_id
"""
_FORGET: Final = """
    DELETE FROM admin_tasks WHERE changed_ms < :before_ms AND status IN ('complete', 'failed')
"""


def insert_task(txn: WriteTxn, task: AdminTask) -> None:
    txn.execute(
        _INSERT,
        task_nid=txn.next_position(),
        **(msgspec.structs.asdict(task) | {"status": task.status.value}),
    )


def find_task(txn: ReadTxn, task_id: str) -> AdminTask | None:
    row = txn.first(_FIND, task_id=task_id)
    return None if row is None else _task(row)


def list_tasks(txn: ReadTxn, wanted: TaskFilter, limit: int) -> list[AdminTask]:
    """Tasks that are known, the oldest first. Cost: reads the table, which is small."""
    rows = txn.all(
        _LIST,
        action=wanted.action,
        resource_id=wanted.resource_id,
        status=None if wanted.status is None else wanted.status.value,
        before_ms=wanted.changed_before_ms,
        limit=limit,
    )
    return [_task(row) for row in rows]


def list_tasks_of(txn: ReadTxn, resource_id: str, action: str) -> list[AdminTask]:
    """The tasks of one kind about a room or user, the oldest first."""
    return [_task(row) for row in txn.all(_OF_RESOURCE, resource_id=resource_id, action=action)]


def change_task(
    txn: WriteTxn, task_id: str, status: Status, result: bytes, now_ms: int, error: str | None = None
) -> None:
    """Note how far a task has come. `result`: JSON."""
    txn.execute(_CHANGE, task_id=task_id, status=status.value, result=result, error=error, now_ms=now_ms)


def forget_tasks(txn: WriteTxn, before_ms: int) -> int:
    """Forget tasks that ended before a time; how many."""
    return txn.execute(_FORGET, before_ms=before_ms)


def _task(row: Row) -> AdminTask:
    task_id, action, resource_id, status, requested_by, wish, result, error, changed_ms = row
    return AdminTask(
        task_id=task_id,
        action=action,
        resource_id=resource_id,
        status=Status(status),
        requested_by=requested_by,
        wish=wish,
        result=result,
        error=error,
        changed_ms=changed_ms,
    )
