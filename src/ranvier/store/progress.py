"""Tells in the log of work at the start that may take long, so that nobody takes it for a process that hangs."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

REMIND_S: Final = 10.0


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Log `what` now, and every ten seconds while the block runs, be it stuck in one call of the database."""
    begin = time.monotonic()
    is_over = threading.Event()

    def remind() -> None:
        while not is_over.wait(REMIND_S):
            log.info("%s: for %d s by now", what, time.monotonic() - begin)

    reminder = threading.Thread(target=remind, name="store-progress", daemon=True)
    log.info("%s", what)
    reminder.start()
    try:
        yield
    finally:
        is_over.set()
        reminder.join()
