"""What users upload, at once or to a URI that they reserved before.

Spec: client-server API, "Content repository"; MSC2246 (asynchronous uploads).
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Final

import msgspec

from ranvier.core.errors import (
    CannotOverwriteMedia,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    MediaTooLarge,
    NotFound,
    UserSuspended,
)
from ranvier.core.identifiers import ServerName
from ranvier.core.media.disposition import MAX_NAME_CHARS, clean_name, clean_type
from ranvier.io.blobs import BlobTooLarge
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.media.limits import MediaLimits
from ranvier.services.media.storing import StoredContent, Storing
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.interned import Interner, find_server_nids, intern_servers
from ranvier.store.tables.media import (
    Medium,
    complete_medium,
    count_reservations,
    find_medium,
    find_usage,
    insert_medium,
)

RESERVATION_MS: Final = 24 * 3_600_000
MAX_RESERVATIONS: Final = 20
"""Of one user, that wait for their content."""
MEDIA_ID_CHARS: Final = 32


_Record = Callable[[WriteTxn, StoredContent], None]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file on its way in. `declared_length`: what its sender says, in bytes."""

    content_type: str | None
    file_name: str | None
    declared_length: int | None
    chunks: AsyncIterable[bytes]


class Reservation(msgspec.Struct, frozen=True):
    content_uri: str
    unused_expires_at: int  # ms


class Uploads:
    """Takes files from users."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        storing: Storing,
        clock: Clock,
        randomness: Randomness,
        limits: MediaLimits,
    ) -> None:
        self._db = db
        self._interner = interner
        self._storing = storing
        self._clock = clock
        self._randomness = randomness
        self._limits = limits

    async def upload(self, requester: Requester, upload: Upload) -> str:
        """Take a file; its content URI.

        Raises: MediaTooLarge; Forbidden above the user's quota; UserSuspended.
        """
        self._check(requester, upload)
        if self._limits.has_quota:
            await self._db.read(self._check_quota, requester, upload.declared_length or 0)
        media_id = self._new_id()

        def record(txn: WriteTxn, content: StoredContent) -> None:
            self._check_quota(txn, requester, content.size_bytes)
            insert_medium(txn, self._medium(txn, requester, media_id, upload, content))

        await self._store(upload, record)
        return self._uri(media_id)

    async def reserve(self, requester: Requester) -> Reservation:
        """Make a content URI whose content comes later.

        Raises: LimitExceeded when too many of the user's wait; Forbidden above the quota; UserSuspended.
        """
        _check_may_upload(requester)
        media_id, now_ms = self._new_id(), self._clock.now_ms()
        expires_ms = now_ms + RESERVATION_MS
        await self._db.write(self._reserve, requester, media_id, now_ms, expires_ms)
        return Reservation(self._uri(media_id), expires_ms)

    async def upload_to(
        self, requester: Requester, server: ServerName, media_id: str, upload: Upload
    ) -> None:
        """Give a reserved URI its content.

        Raises: NotFound (not reserved, or expired); Forbidden (by somebody else, or above the quota);
        CannotOverwriteMedia; MediaTooLarge; UserSuspended.
        """
        self._check(requester, upload)
        await self._db.read(self._check_reservation, requester, server, media_id)
        if self._limits.has_quota:
            await self._db.read(self._check_quota, requester, upload.declared_length or 0)

        def record(txn: WriteTxn, content: StoredContent) -> None:
            self._check_reservation(txn, requester, server, media_id)
            self._check_quota(txn, requester, content.size_bytes)
            if not complete_medium(txn, self._medium(txn, requester, media_id, upload, content)):
                raise CannotOverwriteMedia("This media has been uploaded already.")

        await self._store(upload, record)

    async def _store(self, upload: Upload, record: _Record) -> None:
        try:
            await self._storing.store(_whole(upload), self._limits.max_upload_bytes, record)
        except BlobTooLarge as error:
            raise self._too_large() from error

    def _check(self, requester: Requester, upload: Upload) -> None:
        _check_may_upload(requester)
        if (upload.declared_length or 0) > self._limits.max_upload_bytes:
            raise self._too_large()
        if len(upload.file_name or "") > MAX_NAME_CHARS:
            raise InvalidParam(f"A file name has at most {MAX_NAME_CHARS} characters.")

    def _too_large(self) -> MediaTooLarge:
        return MediaTooLarge(f"A file may have at most {self._limits.max_upload_bytes} bytes.")

    def _check_quota(self, txn: ReadTxn, requester: Requester, more_bytes: int) -> None:
        if not self._limits.has_quota:
            return
        max_bytes, max_count = self._limits.user_quota_bytes, self._limits.user_quota_count
        usage = find_usage(txn, requester.user_nid)
        if max_bytes is not None and usage.size_bytes + more_bytes > max_bytes:
            raise Forbidden(f"Your files may have at most {max_bytes} bytes together.")
        if max_count is not None and usage.media_count >= max_count:
            raise Forbidden(f"You may upload at most {max_count} files.")

    def _reserve(
        self, txn: WriteTxn, requester: Requester, media_id: str, now_ms: int, expires_ms: int
    ) -> None:
        self._check_quota(txn, requester, 0)
        if count_reservations(txn, requester.user_nid, now_ms) >= MAX_RESERVATIONS:
            raise LimitExceeded("Too many of your uploads are pending.", retry_after_ms=60_000)
        medium = Medium(
            server_nid=self._own_nid(txn),
            media_id=media_id,
            uploader_nid=requester.user_nid,
            created_ms=now_ms,
            accessed_ms=now_ms,
            expires_ms=expires_ms,
        )
        insert_medium(txn, medium)

    def _check_reservation(
        self, txn: ReadTxn, requester: Requester, server: ServerName, media_id: str
    ) -> None:
        is_own = server == self._interner.own_server
        nid = find_server_nids(txn, self._interner, [server]).get(server) if is_own else None
        medium = None if nid is None else find_medium(txn, nid, media_id)
        if medium is None or medium.uploader_nid is None:
            raise NotFound("There is no such media.")
        if medium.uploader_nid != requester.user_nid:
            raise Forbidden("Only who created this content URI may upload to it.")
        if medium.blob_hash is not None:
            raise CannotOverwriteMedia("This media has been uploaded already.")
        if (medium.expires_ms or 0) <= self._clock.now_ms():
            raise NotFound("This content URI has expired.")

    def _medium(
        self, txn: WriteTxn, requester: Requester, media_id: str, upload: Upload, content: StoredContent
    ) -> Medium:
        now_ms = self._clock.now_ms()
        return Medium(
            server_nid=self._own_nid(txn),
            media_id=media_id,
            blob_hash=content.blob_hash,
            size_bytes=content.size_bytes,
            content_type=clean_type(upload.content_type),
            file_name=clean_name(upload.file_name),
            uploader_nid=requester.user_nid,
            created_ms=now_ms,
            accessed_ms=now_ms,
            is_open=self._limits.unauthenticated_downloads,
        )

    def _own_nid(self, txn: WriteTxn) -> int:
        own = self._interner.own_server
        return intern_servers(txn, self._interner, [own])[own]

    def _new_id(self) -> str:
        return self._randomness.text(MEDIA_ID_CHARS)

    def _uri(self, media_id: str) -> str:
        return f"mxc://{self._interner.own_server}/{media_id}"


def _check_may_upload(requester: Requester) -> None:
    if requester.is_suspended:
        raise UserSuspended("Your account is suspended.")


async def _whole(upload: Upload) -> AsyncIterator[bytes]:
    """The bytes, if they are as many as announced: half a file is not a file. Raises: InvalidParam."""
    received = 0
    async for chunk in upload.chunks:
        received += len(chunk)
        yield chunk
    if upload.declared_length is not None and received != upload.declared_length:
        raise InvalidParam("The body is shorter than its Content-Length.")
