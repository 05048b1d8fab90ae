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


def module_of(path):
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defined(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # What a command line calls is called by its decorator.
            if not any(".command(" in ast.unparse(one) for one in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (one.id for one in targets if isinstance(one, ast.Name))


def used(tree, module, modules):
    """(module, name) of what a module uses of its own and of others."""
    known = {}
    strings_in = set(strings(tree))
    imported_late = strings_in & modules  # by `import_module`
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                if (full := f"{node.module}.{one.name}") in modules:
                    known[one.asname or one.name] = full
                else:
                    yield node.module, one.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from ((late, node.attr) for late in imported_late)
            if isinstance(node.value, ast.Name):
                yield known.get(node.value.id), node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield module, node.id
    yield from ((module, text) for text in strings_in)  # as in an annotation


def test_nothing_stands_unused():
    """A worker that is not composed, a row that nobody deletes: what is written but not used is a fault."""
    trees = {module_of(path): ast.parse(path.read_text()) for path in SOURCES}
    names = {(module, name) for module, tree in trees.items() for name in defined(tree)}
    uses = {use for module, tree in trees.items() for use in used(tree, module, trees.keys())}
    assert {f"{module}.{name}" for module, name in names - uses if not name.startswith("__")} == {
        "ranvier.app.config_file.reference_page",  # makes a page of the documentation
        "ranvier.app.start.main",
        "ranvier.core.events.parse.parse_pdu",  # of tests, as are those in memory, in virtual time, and seeded
        "ranvier.core.state_resolution.in_memory.InMemoryGraph",
        "ranvier.io.clock.VirtualClock",
        "ranvier.io.picture_worker.DECODERS",  # imported to be there
        "ranvier.io.randomness.seeded_randomness",
    }


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
