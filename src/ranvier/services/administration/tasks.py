"""What an administrator sets going and looks at later: a row that tells how far it is, and a job that does it."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ranvier.core.errors import MatrixError, NotFound, ProtocolFault
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.admin_tasks import (
    DELETE_ROOM as DELETE_ROOM,
)
from ranvier.store.tables.admin_tasks import (
    PURGE_HISTORY as PURGE_HISTORY,
)
from ranvier.store.tables.admin_tasks import (
    REDACT_USER as REDACT_USER,
)
from ranvier.store.tables.admin_tasks import (
    AdminTask as AdminTask,
)
from ranvier.store.tables.admin_tasks import (
    Status as Status,
)
from ranvier.store.tables.admin_tasks import (
    TaskFilter as TaskFilter,
)
from ranvier.store.tables.admin_tasks import (
    change_task,
    find_task,
    forget_tasks,
    insert_task,
    list_tasks,
    list_tasks_of,
)
from ranvier.store.tables.jobs import Job, WaitingJob, enqueue_job, list_waiting_jobs

KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long a task that ended is known."""
MAX_LISTED: Final = 1_000
_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 1.0

Work = Callable[[AdminTask], Awaitable[Any]]
"""Does a task and returns its result. Doing it again from the beginning must do no harm."""


class Tasks:
    """The tasks of administrators."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness

    async def start(
        self,
        requester: Requester,
        action: str,
        resource_id: str,
        wish: object,
        also: Callable[[WriteTxn], None] | None = None,
    ) -> str:
        """Set a task going; its id. `also` writes with it, and what that raises undoes it."""
        task = AdminTask(
            task_id=self._randomness.text(16),
            action=action,
            resource_id=resource_id,
            status=Status.SCHEDULED,
            requested_by=requester.user_id,
            wish=msgspec.json.encode(wish),
            result=b"{}",
            error=None,
            changed_ms=self._clock.now_ms(),
        )
        await self._db.write(_start, task, also)
        return task.task_id

    async def find(self, task_id: str, action: str) -> AdminTask:
        """Raises: NotFound."""
        task = await self._db.read(find_task, task_id.replace("\0", ""))
        if task is None or task.action != action:
            raise NotFound("There is no such task, or it ended long ago.")
        return task

    async def list_of(self, resource_id: str, action: str) -> list[AdminTask]:
        """What is known about a room or user, the oldest first."""
        return await self._db.read(list_tasks_of, resource_id, action)

    async def list_all(self, wanted: TaskFilter) -> list[AdminTask]:
        """The oldest first."""
        return await self._db.read(list_tasks, wanted, MAX_LISTED)

    async def list_jobs(self) -> list[WaitingJob]:
        """What waits in the background besides."""
        known = (DELETE_ROOM, PURGE_HISTORY, REDACT_USER)
        jobs = await self._db.read(list_waiting_jobs, MAX_LISTED)
        return [job for job in jobs if job.kind not in known]

    async def wait(self, task_id: str, action: str) -> AdminTask:
        """Until the task has ended. Whoever does it may be another process, so the row is looked at."""
        pause_s = _FIRST_LOOK_S
        while (task := await self.find(task_id, action)).status in (Status.SCHEDULED, Status.ACTIVE):
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S)
        return task

    async def note(self, task: AdminTask, result: object) -> None:
        """How far the task has come."""
        encoded = msgspec.json.encode(result)
        await self._db.write(change_task, task.task_id, Status.ACTIVE, encoded, self._clock.now_ms())

    def job(self, work: Work) -> Callable[[Job], Awaitable[None]]:
        """What a `JobRunner` runs: `work` on the task of the job. A fault of what was asked for ends the task; one of
        ours lets the job be done again."""

        async def run(job: Job) -> None:
            task = await self._db.read(find_task, job.key)
            if task is None or task.status in (Status.COMPLETE, Status.FAILED):
                return
            await self._db.write(change_task, task.task_id, Status.ACTIVE, task.result, self._clock.now_ms())
            try:
                result = await work(task)
            except (MatrixError, ProtocolFault) as error:
                reached = await self._db.read(find_task, task.task_id)
                result_now = task.result if reached is None else reached.result
                await self._end(task, Status.FAILED, result_now, str(error))
            else:
                await self._end(task, Status.COMPLETE, msgspec.json.encode(result), None)

        return run

    async def _end(self, task: AdminTask, status: Status, result: bytes, error: str | None) -> None:
        await self._db.write(change_task, task.task_id, status, result, self._clock.now_ms(), error)


def _start(txn: WriteTxn, task: AdminTask, also: Callable[[WriteTxn], None] | None) -> None:
    if also is not None:
        also(txn)
    forget_tasks(txn, task.changed_ms - KEPT_MS)
    insert_task(txn, task)
    enqueue_job(txn, task.action, task.task_id, b"{}", task.changed_ms)
