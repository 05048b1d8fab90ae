"""The sizes of thumbnails: what is asked for is rounded up to one of a few, so that a picture has only so many.

Spec: client-server API, "Thumbnails".
"""

from typing import Final

SCALED: Final = ((96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200), (4096, 4096))
"""Boxes that a scaled thumbnail fits into."""

CROPPED_SIDES: Final = (32, 96, 160, 320, 640, 1280, 4096)
"""The longer side of a cropped thumbnail. The shorter one is a multiple of a sixteenth of it."""

_PARTS: Final = 16


def round_up(width: int, height: int, *, crop: bool) -> tuple[int, int]:
    """The size, from the list, that is as large as what is asked for; or the largest. Both are at least 1."""
    if crop:
        return _round_up_crop(width, height)
    for box in SCALED:
        if width <= box[0] and height <= box[1]:
            return box
    return SCALED[-1]


def _round_up_crop(width: int, height: int) -> tuple[int, int]:
    longer = max(width, height)
    side = next((side for side in CROPPED_SIDES if side >= longer), CROPPED_SIDES[-1])
    parts = -(-min(width, height) * _PARTS // longer)
    shorter = side * parts // _PARTS
    return (side, shorter) if width >= height else (shorter, side)
