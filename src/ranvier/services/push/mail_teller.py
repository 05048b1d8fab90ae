"""Telling by mail, seldom: a while after the first thing that is new, and then ever more seldom while the user reads
nothing. What was read meanwhile is not told.
"""

from typing import Final

from ranvier.io.ports import Mailer, RemoteFault
from ranvier.services.mail_texts import MailTexts
from ranvier.services.push.letters import write_letter
from ranvier.services.push.notices import Notices
from ranvier.services.push.telling import Told
from ranvier.services.push.unsubscribing import Unsubscribing

WAIT_MS: Final = 600_000
"""After the first unread event: who is there has read it by then."""

MIN_GAP_MS: Final = 1_800_000
MAX_GAP_MS: Final = 86_400_000
"""Between two mails."""


class MailTeller:
    """A `Teller` of pushers of kind email."""

    def __init__(self, mailer: Mailer, texts: MailTexts, unsubscribing: Unsubscribing) -> None:
        self._mailer = mailer
        self._texts = texts
        self._unsubscribing = unsubscribing

    def when(self, found: Notices, now_ms: int) -> int | None:
        pusher = found.pusher
        if not found.notices or pusher.due_ms is not None:
            return pusher.due_ms if found.notices else None
        if pusher.told_ms is None:
            return now_ms + WAIT_MS
        gap_ms = MIN_GAP_MS if _has_read_the_last(found) else pusher.gap_ms
        return max(now_ms + WAIT_MS, pusher.told_ms + gap_ms)

    async def tell(self, found: Notices) -> Told:
        pusher = found.pusher
        link = self._unsubscribing.link(pusher.pusher_nid)
        letter = write_letter(self._texts, pusher.keys.pushkey.casefold(), found, link)
        try:
            await self._mailer.send(letter)
        except RemoteFault as fault:
            return Told(pushed_nid=pusher.pushed_nid, fault=str(fault))
        except ValueError:
            # An address that an administrator wrote, to which no mail can go.
            return Told(pushed_nid=pusher.pushed_nid, is_rejected=True)
        gap_ms = MIN_GAP_MS
        if pusher.told_ms is not None and not _has_read_the_last(found):
            gap_ms = min(MAX_GAP_MS, 2 * pusher.gap_ms)
        # The mail tells how many there are, also of those that it does not show.
        return Told(pushed_nid=found.position, gap_ms=gap_ms)


def _has_read_the_last(found: Notices) -> bool:
    """Whether nothing is unread but what is new."""
    return not found.is_cut and found.unread <= len(found.notices)
