"""Rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
SQL = re.compile(r"^\s*(SELECT\s|INSERT INTO\s|UPDATE\s\w+\sSET|DELETE FROM\s|CREATE TABLE\s)", re.MULTILINE)


def ids(path):
    return str(path.relative_to(ROOT / "src"))


def strings(tree):
    return (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_module_can_be_read_in_one_sitting(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_module_says_what_it_is_and_leaves_nothing_for_later(path):
    text = path.read_text()
    if path.stat().st_size:
        assert ast.get_docstring(ast.parse(text)), "every module has a docstring"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_imports_stand_at_the_top(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert not any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node)), (
                node.name
            )


def test_sql_stands_in_the_store_alone():
    for path in SOURCES:
        if "store" not in path.parts:
            assert not any(SQL.match(text) for text in strings(ast.parse(path.read_text()))), path


def test_one_function_inserts_into_events():
    inserting = [
        path.name
        for path in SOURCES
        if any(re.search(r"INSERT INTO events\b", text) for text in strings(ast.parse(path.read_text())))
    ]
    assert inserting == ["append.py"]


def test_locks_carry_no_addresses():
    for lock in (ROOT / "requirements").glob("*.lock"):
        assert "://" not in lock.read_text()
