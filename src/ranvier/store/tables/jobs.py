"""Work for the background that must not be lost: queued in the transaction that makes it necessary.

Table: jobs. Owner: whoever names the kind. Growth: one row a job, until it is done.
Index -> query: jobs_by_time -> what is due; jobs_by_lease -> keep and release; UNIQUE (kind, dedupe_key) -> asking
again while the job waits.

Any process may take a job: it leases it for a while, and when it dies the lease ends and another one takes the job
again. So doing a job twice must do no harm. Asking for a job that is under way makes it a new one (a new job_nid),
so that what changed meanwhile is not missed.
"""

from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, WriteTxn


class Job(msgspec.Struct, frozen=True):
    job_nid: int
    key: str
    payload: bytes  # JSON
    attempts: int  # this one included


class WaitingJob(msgspec.Struct, frozen=True):
    job_nid: int
    kind: str
    key: str
    run_ms: int
    is_leased: bool
    last_error: str | None


_ENQUEUE: Final = """
    INSERT INTO jobs (job_nid, kind, dedupe_key, payload, run_ms)
    VALUES (:job_nid, :kind, :key, :payload, :run_ms)
    ON CONFLICT (kind, dedupe_key) DO UPDATE SET job_nid = excluded.job_nid, payload = excluded.payload,
        run_ms = excluded.run_ms, lease = NULL, attempts = 0, last_error = NULL
"""
_DUE: Final = """
    SELECT job_nid, dedupe_key, payload, attempts + 1 FROM jobs
    WHERE kind = :kind AND run_ms <= :now_ms ORDER BY run_ms LIMIT :limit {skip_locked}
"""
_AHEAD: Final = """
    SELECT job_nid, dedupe_key, payload, attempts + 1 FROM jobs
    WHERE kind = :kind AND run_ms > :latest_ms ORDER BY run_ms LIMIT :limit {skip_locked}
"""
_LEASE: Final = """
    UPDATE jobs SET lease = :lease, run_ms = :until_ms, attempts = attempts + 1
    WHERE job_nid = :job_nid
"""
_HURRY: Final = """
    UPDATE jobs SET run_ms = :now_ms
    WHERE kind = :kind AND dedupe_key = :key AND lease IS NULL AND run_ms > :now_ms
"""
_COMPLETE: Final = "DELETE FROM jobs WHERE job_nid = :job_nid"
_EXTEND: Final = "UPDATE jobs SET run_ms = :until_ms WHERE lease = :lease"
_RELEASE: Final = "UPDATE jobs SET lease = NULL, run_ms = :now_ms WHERE lease = :lease"
_POSTPONE: Final = """
    UPDATE jobs SET lease = NULL, run_ms = :run_ms, last_error = :error WHERE job_nid = :job_nid
"""
_WAITING: Final = """
    SELECT job_nid, kind, dedupe_key, run_ms, CASE WHEN lease IS NULL THEN 0 ELSE 1 END, last_error
    FROM jobs ORDER BY job_nid LIMIT :limit
"""
_NEXT: Final = "SELECT MIN(run_ms) FROM jobs WHERE kind = :kind"
_LAST: Final = "SELECT MAX(run_ms) FROM jobs WHERE kind = :kind"

FAR_OFF: Final = 2**63 - 1

MAX_ERROR_CHARS: Final = 500


def enqueue_job(txn: WriteTxn, kind: str, key: str, payload: bytes, run_ms: int) -> None:
    """Ask for a job, not before `run_ms`. There is one job of a kind for each key: the latest request counts."""
    txn.execute(_ENQUEUE, job_nid=txn.next_position(), kind=kind, key=key, payload=payload, run_ms=run_ms)
    txn.hint(Kind.JOB, 0)


def hurry_job(txn: WriteTxn, kind: str, key: str, now_ms: int) -> None:
    """Let a job that waits be due, if there is one."""
    txn.execute(_HURRY, kind=kind, key=key, now_ms=now_ms)
    txn.hint(Kind.JOB, 0)


def lease_jobs(
    txn: WriteTxn,
    kind: str,
    lease: str,
    now_ms: int,
    until_ms: int,
    limit: int,
    latest_ms: int = FAR_OFF,
) -> list[Job]:
    """Take jobs that are due, for oneself until `until_ms`. `lease` names who takes them.

    `latest_ms`: no job is to wait for a later time; one that does is from before the clock was set back, and due.
    """
    jobs = [Job(*row) for row in txn.all(_DUE, kind=kind, now_ms=now_ms, limit=limit)]
    if not jobs:
        jobs = [Job(*row) for row in txn.all(_AHEAD, kind=kind, latest_ms=latest_ms, limit=limit)]
    txn.execute_many(_LEASE, [{"job_nid": job.job_nid, "lease": lease, "until_ms": until_ms} for job in jobs])
    return jobs


def extend_jobs(txn: WriteTxn, lease: str, until_ms: int) -> None:
    """Whoever took jobs under this name is still doing them."""
    txn.execute(_EXTEND, lease=lease, until_ms=until_ms)


def release_jobs(txn: WriteTxn, lease: str, now_ms: int) -> None:
    """Whoever took jobs under this name does them no more: they are due again."""
    txn.execute(_RELEASE, lease=lease, now_ms=now_ms)


def complete_job(txn: WriteTxn, job_nid: int) -> None:
    """The job is done. One that was asked for again meanwhile stays."""
    txn.execute(_COMPLETE, job_nid=job_nid)


def postpone_job(txn: WriteTxn, job_nid: int, run_ms: int, error: str) -> None:
    """The job failed: try again at `run_ms`."""
    txn.execute(_POSTPONE, job_nid=job_nid, run_ms=run_ms, error=error[:MAX_ERROR_CHARS])


def find_next_run_ms(txn: ReadTxn, kind: str, latest_ms: int = FAR_OFF) -> int | None:
    """When the next job of a kind is due (or the next lease ends): 0 if one is that waits for a time after `latest_ms`,
    as in `lease_jobs`. None without any."""
    last: int | None = txn.value(_LAST, kind=kind)
    if last is None or last > latest_ms:
        return None if last is None else 0
    value: int | None = txn.value(_NEXT, kind=kind)
    return value


def list_waiting_jobs(txn: ReadTxn, limit: int) -> list[WaitingJob]:
    """Jobs of all kinds, the oldest first, for administrators."""
    return [
        WaitingJob(nid, kind, key, run_ms, bool(leased), error)
        for nid, kind, key, run_ms, leased, error in txn.all(_WAITING, limit=limit)
    ]
