"""What media may cost."""

import msgspec


class MediaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that the administrator sets. None: no bound."""

    max_upload_bytes: int
    max_remote_bytes: int
    user_quota_bytes: int | None = None
    user_quota_count: int | None = None
    remote_cache_bytes: int
    remote_retention_ms: int | None
    unauthenticated_downloads: bool = False

    @property
    def has_quota(self) -> bool:
        """Whether what a user uploads is bounded."""
        return self.user_quota_bytes is not None or self.user_quota_count is not None
