"""Media: uploads, downloads, thumbnails, other servers' files, previews of URLs, administration."""

import os
from typing import Final

import msgspec

from ranvier.app.compose.federation import Remote
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.config import Config, MediaConfig
from ranvier.core.identifiers import ServerName, parse_mxc
from ranvier.http.federation.media import MediaForServers
from ranvier.http.media.administration import (
    MediaAccountingEndpoints,
    MediaDeletionEndpoints,
    MediaModerationEndpoints,
)
from ranvier.http.media.downloads import DownloadEndpoints
from ranvier.http.media.unauthenticated import UnauthenticatedDownloadEndpoints
from ranvier.http.media.uploads import UploadEndpoints
from ranvier.http.media.url_previews import UrlPreviewEndpoint
from ranvier.io.blobs import DiskBlobStore
from ranvier.io.pictures import PictureProcesses
from ranvier.services.media.accounting import MediaAccounting
from ranvier.services.media.deleting import MediaDeletion
from ranvier.services.media.downloading import Downloads
from ranvier.services.media.limits import MediaLimits
from ranvier.services.media.moderating import MediaModeration
from ranvier.services.media.preview_images import PreviewImages
from ranvier.services.media.remote import Elsewhere, NothingElsewhere, RemoteMedia
from ranvier.services.media.remote_files import RemoteFiles
from ranvier.services.media.storing import Storing
from ranvier.services.media.sweeping import MediaSweeper
from ranvier.services.media.thumbnails import Thumbnails
from ranvier.services.media.uploading import Uploads
from ranvier.services.media.url_previews import UrlPreviews
from ranvier.services.media.web import Web

_DAY_MS: Final = 86_400_000


class Media(msgspec.Struct, frozen=True):
    """Media, and what of them other areas use."""

    uploads: Uploads
    thumbnails: Thumbnails
    composed: Composed


def lay_media(foundation: Foundation, remote: Remote | None) -> Media:
    """`remote`: None where there is no federation."""
    ports, interner = foundation.ports, foundation.interner
    config, db, clock = ports.config.media, ports.db, ports.clock
    limits = _limits(config)
    blobs = DiskBlobStore(ports.config.data_dir / "media")
    storing = Storing(db, blobs, clock)
    pictures = PictureProcesses(count=max(1, (os.cpu_count() or 1) // 2))
    elsewhere: Elsewhere = NothingElsewhere()
    if remote is not None:
        files = RemoteFiles(remote.requests, ports.network.http)
        elsewhere = RemoteMedia(files, storing, interner, clock, limits)
    downloads = Downloads(db, interner, blobs, elsewhere, clock, opens_new=config.unauthenticated_downloads)
    thumbnails = Thumbnails(db, downloads, storing, pictures, elsewhere, clock)
    sweeper = MediaSweeper(db, blobs, clock, limits)
    uploads = Uploads(db, interner, storing, clock, ports.randomness, limits)
    endpoints: list[object] = [
        UploadEndpoints(uploads),
        DownloadEndpoints(downloads, thumbnails, config.max_upload_bytes),
        UnauthenticatedDownloadEndpoints(
            downloads, thumbnails, config.max_upload_bytes, _provider_icons(ports.config)
        ),
        MediaModerationEndpoints(MediaModeration(db, interner)),
        MediaDeletionEndpoints(MediaDeletion(db, interner, clock)),
        MediaAccountingEndpoints(MediaAccounting(db, interner)),
    ]
    if remote is not None:
        endpoints.append(MediaForServers(ports.config.name, downloads, thumbnails, ports.randomness))
    if config.url_previews.enabled:
        images = PreviewImages(db, interner, storing, blobs, pictures, clock, ports.randomness)
        web = Web(ports.network.http, config.url_previews.denied_hosts)
        endpoints.append(UrlPreviewEndpoint(UrlPreviews(db, web, pictures, images, clock)))
    return Media(uploads, thumbnails, Composed(endpoints=endpoints, workers=[pictures, sweeper]))


def _provider_icons(config: Config) -> frozenset[tuple[ServerName, str]]:
    """What people see before they sign in. Pictures of other servers are not fetched for just anybody."""
    icons = (parse_mxc(one.icon) for one in config.sso.providers if one.icon is not None)
    return frozenset(icon for icon in icons if icon[0] == config.name)


def _limits(config: MediaConfig) -> MediaLimits:
    days = config.remote_retention_days
    return MediaLimits(
        max_upload_bytes=config.max_upload_bytes,
        max_remote_bytes=config.max_remote_bytes,
        user_quota_bytes=config.user_quota_bytes,
        user_quota_count=config.user_quota_count,
        remote_cache_bytes=config.remote_cache_bytes,
        remote_retention_ms=days * _DAY_MS if days else None,
        unauthenticated_downloads=config.unauthenticated_downloads,
    )
