"""Test vectors, each file with its source."""

import json
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """The vectors in the file `name`, a path below this directory."""
    return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
