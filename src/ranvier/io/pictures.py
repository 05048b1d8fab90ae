"""Pictures and web pages are decoded in other processes: they get bytes and give bytes, and are killed when they
take too long.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

JOB_TIMEOUT_S: Final = 30.0
MAX_RESULT_BYTES: Final = 32 * 1_048_576
MAX_JOBS: Final = 200
"""Jobs of one process, so that what a decoder leaks does not stay."""
IDLE_S: Final = 60.0
"""A process that had nothing to do for so long ends."""


class NoPicture(Exception):
    """These bytes are no picture (or page) that can be decoded."""


class PictureTooLarge(NoPicture):
    """It takes more memory or time than a picture may."""


class Picture(msgspec.Struct, frozen=True):
    """What a file is by its content, in the orientation in which it is shown."""

    content_type: str
    width: int
    height: int


class Source(msgspec.Struct, frozen=True):
    """The bytes of a picture or page, and how many they are."""

    length: int
    chunks: AsyncIterable[bytes]


class Pictures(Protocol):
    """Both raise NoPicture, PictureTooLarge among them; and what `source.chunks` raises."""

    async def measure(self, source: Source) -> Picture: ...

    async def make_thumbnail(
        self, source: Source, box: tuple[int, int], *, crop: bool, animated: bool
    ) -> tuple[Picture, bytes]:
        """A picture no larger than `box`, which fits into it or (`crop`) fills it; `animated`: it may move.
        Without bytes when the source itself is small enough."""
        ...


class Pages(Protocol):
    async def read_page(self, source: Source, content_type: str, url: str) -> Mapping[str, str]:
        """What an HTML page at `url` says about itself: see `io.open_graph`. Raises: as `Pictures`."""
        ...


class _Died(Exception):
    """The process ended in the middle of a job."""


class _Job(msgspec.Struct, frozen=True):
    do: str
    length: int
    width: int = 0
    height: int = 0
    crop: bool = False
    animated: bool = False
    content_type: str = ""
    url: str = ""


class _Answer(msgspec.Struct, frozen=True):
    length: int
    fault: str | None = None
    content_type: str = ""
    width: int = 0
    height: int = 0


class PictureProcesses:
    """`Pictures` and `Pages` in at most `count` processes, started when they are needed.

    A worker: `run` ends them when idle.
    """

    name = "picture processes"

    def __init__(self, count: int = 1, timeout_s: float = JOB_TIMEOUT_S) -> None:
        self._slots = asyncio.Semaphore(count)
        self._timeout_s = timeout_s
        self._idle: list[_Worker] = []

    async def measure(self, source: Source) -> Picture:
        picture, _ = await self._do(_Job("measure", source.length), source)
        return picture

    async def make_thumbnail(
        self, source: Source, box: tuple[int, int], *, crop: bool, animated: bool
    ) -> tuple[Picture, bytes]:
        job = _Job("thumbnail", source.length, box[0], box[1], crop, animated)
        return await self._do(job, source)

    async def read_page(self, source: Source, content_type: str, url: str) -> Mapping[str, str]:
        job = _Job("read page", source.length, content_type=content_type, url=url)
        _, properties = await self._do(job, source)
        return msgspec.json.decode(properties, type=dict[str, str])

    async def run(self) -> None:
        """End processes that have nothing to do; all of them, in the end."""
        try:
            while True:
                await asyncio.sleep(IDLE_S)
                now = asyncio.get_running_loop().time()
                idle = [worker for worker in self._idle if now - worker.used > IDLE_S]
                self._idle = [worker for worker in self._idle if worker not in idle]
                await _end(idle)
        finally:
            idle, self._idle = self._idle, []
            await _end(idle)

    def _take_idle(self) -> "_Worker | None":
        """One that still runs: the kernel may have ended it meanwhile."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_running:
                return worker
        return None

    async def _do(self, job: _Job, source: Source) -> tuple[Picture, bytes]:
        async with self._slots:
            worker = self._take_idle() or await _start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer, body = await worker.do(job, source)
            except TimeoutError as error:
                await worker.end()
                raise PictureTooLarge("it takes too long") from error
            except _Died as error:
                # A decoder that a hostile file brings down takes only its own process with it.
                await worker.end()
                raise NoPicture("decoding it failed") from error
            except BaseException:
                await worker.end()
                raise
            if worker.jobs < MAX_JOBS:
                self._idle.append(worker)
            else:
                await worker.end()
        if answer.fault == "too large":
            raise PictureTooLarge(answer.fault)
        if answer.fault is not None:
            raise NoPicture(answer.fault)
        return Picture(answer.content_type, answer.width, answer.height), body


class _Worker:
    """A running process and its pipes."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None, "it was started with pipes"
        assert process.stdout is not None, "it was started with pipes"
        self._process = process
        self._jobs = process.stdin
        self._results = process.stdout
        self.jobs = 0
        self.used = 0.0

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def do(self, job: _Job, source: Source) -> tuple[_Answer, bytes]:
        """Raises: _Died."""
        self.jobs += 1
        self.used = asyncio.get_running_loop().time()
        try:
            self._jobs.write(msgspec.json.encode(job) + b"\n")
            async for chunk in source.chunks:
                self._jobs.write(chunk)
                await self._jobs.drain()
            await self._jobs.drain()
            answer = msgspec.json.decode(await self._results.readline(), type=_Answer)
            if answer.length > MAX_RESULT_BYTES:
                raise _Died("it answers with too much")
            return answer, await self._results.readexactly(answer.length)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError) as error:
            raise _Died(str(error)) from error

    async def end(self) -> None:
        if self.is_running:
            self._process.kill()
        self._jobs.close()
        await self._process.wait()


async def _start() -> _Worker:
    # -P: what happens to lie in the working directory is not imported.
    command = (sys.executable, "-P", "-m", "ranvier.io.picture_worker")
    return _Worker(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE))


async def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        await worker.end()
