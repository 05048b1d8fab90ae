"""docs/endpoints.md says what is served, no more and no less."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts/endpoints.py"


async def test_the_table_of_operations_is_true():
    spec = importlib.util.spec_from_file_location("endpoints", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    endpoints = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(endpoints)
    assert endpoints.PAGE.read_text() == await endpoints.current_page(), "run scripts/endpoints.py"
