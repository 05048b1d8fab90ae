"""One text, two engines: what a query says is what both understand."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.dialect import MAX_LIST_VALUES, Engine, for_postgres, for_sqlite, schema


@pytest.mark.parametrize(
    ("sql", "params", "sqlite", "postgres"),
    [
        ("SELECT :a, :b, :a", {"a": 1, "b": 2}, ("SELECT ?, ?, ?", [1, 2, 1]), ("SELECT $1, $2, $1", [1, 2])),
        ("x = ':a' -- :b\n", {}, ("x = ':a' -- :b\n", []), ("x = ':a' -- :b\n", [])),
        ("'it''s :a' /* :b */ :c", {"c": 1}, ("'it''s :a' /* :b */ ?", [1]), ("'it''s :a' /* :b */ $1", [1])),
        ('":a" :a', {"a": 1}, ('":a" ?', [1]), ('":a" $1', [1])),
        ("x IN (:a[])", {"a": [1, 2, 3]}, ("x IN (?,?,?,?)", [1, 2, 3, 3]), ("x = ANY($1)", [[1, 2, 3]])),
        ("x NOT IN (:a[])", {"a": (7,)}, ("x NOT IN (?)", [7]), ("x <> ALL($1)", [[7]])),
        ("x IN (:a[])", {"a": []}, ("x IN ()", []), ("x = ANY($1)", [[]])),
        (
            "(x, y) IN (:a[2]) AND z = :z",
            {"a": [(1, "p"), (2, "q")], "z": 3},
            ("(x, y) IN (VALUES (?,?),(?,?)) AND z = ?", [1, "p", 2, "q", 3]),
            ("(x, y) IN (SELECT * FROM unnest($1, $2)) AND z = $3", [[1, 2], ["p", "q"], 3]),
        ),
        ("{greatest}(x, :a)", {"a": 1}, ("MAX(x, ?)", [1]), ("GREATEST(x, $1)", [1])),
    ],
)
def test_both_spellings(sql, params, sqlite, postgres):
    for compiled, expected in ((for_sqlite(sql), sqlite), (for_postgres(sql), postgres)):
        text, values = compiled.render(params)
        assert (text, list(values)) == expected


@pytest.mark.parametrize("sql", ["{nonsense}", ":a::int", "x = ANY(:a[])", "(:a[0])"])
@pytest.mark.parametrize("compiler", [for_sqlite, for_postgres])
def test_what_is_not_understood_is_refused(sql, compiler):
    with pytest.raises(ValueError, match="SQL"):
        compiler(sql)


@pytest.mark.parametrize("compiler", [for_sqlite, for_postgres])
def test_bad_parameters_are_refused(compiler):
    with pytest.raises(KeyError):
        compiler("SELECT :a").render({})
    for not_a_list in ("abc", b"abc", 5):
        with pytest.raises(TypeError):
            compiler("x IN (:a[])").render({"a": not_a_list})
    with pytest.raises(ValueError, match="at most"):
        compiler("x IN (:a[])").render({"a": range(MAX_LIST_VALUES + 1)})
    with pytest.raises(ValueError, match="empty list of rows"):
        compiler("(:a[2])").render({"a": []})
    with pytest.raises(ValueError, match="a row of 1"):
        compiler("(:a[2])").render({"a": [(1, 2), (1,)]})


@given(st.text(alphabet="':\"-/*[]{}ab \n", max_size=40))
def test_any_text_compiles_or_is_refused(sql):
    for compiler in (for_sqlite, for_postgres):
        with contextlib.suppress(ValueError, KeyError):
            compiler(sql).render({name: [] for name in ("a", "b", "ab", "ba")})


def test_schema_words():
    assert schema("a {int}, b {bytes} -- {kept}", Engine.SQLITE) == "a INTEGER, b BLOB -- {kept}"
    assert schema("a {int}", Engine.POSTGRES) == "a BIGINT"
    with pytest.raises(ValueError, match="no parameters"):
        schema("DEFAULT :x", Engine.SQLITE)


def _exercise(txn: WriteTxn, table: str) -> dict[str, object]:
    rows = [
        {"k": k, "t": t, "b": b, "f": f}
        for k, t, b, f in [
            (1, "a", b"\0\xff", True),
            (2, "B", b"", False),
            (2**62, "é\U0001f600", None, True),
        ]
    ]
    txn.execute_many(f"INSERT INTO {table} (k, t, b, f) VALUES (:k, :t, :b, :f)", rows)
    return {
        "all": txn.all(f"SELECT k, t, b, f FROM {table} ORDER BY k"),
        "bytewise": txn.all(f"SELECT t FROM {table} ORDER BY t"),
        "in": txn.all(f"SELECT k FROM {table} WHERE k IN (:ks[]) ORDER BY k", ks=[1, 2**62, 5]),
        "bytes": txn.all(f"SELECT k FROM {table} WHERE b IN (:bs[]) ORDER BY k", bs=[b"", b"\0\xff"]),
        "none of": txn.value(f"SELECT COUNT(*) FROM {table} WHERE t NOT IN (:ts[])", ts=["a"]),
        "empty": (
            txn.value(f"SELECT COUNT(*) FROM {table} WHERE k IN (:ks[])", ks=[]),
            txn.value(f"SELECT COUNT(*) FROM {table} WHERE k NOT IN (:ks[])", ks=[]),
        ),
        "pairs": txn.all(
            f"SELECT k FROM {table} WHERE (k, t) IN (:kt[2]) ORDER BY k", kt=[(1, "a"), (2, "b")]
        ),
        "joined": txn.all(
            f"WITH wanted(k, n) AS (:w[2]) SELECT n, t FROM wanted JOIN {table} USING (k) ORDER BY n",
            w=[(2, 1), (1, 2), (2, 3)],
        ),
        "sum": txn.value(f"SELECT SUM(f) FROM {table}"),
        "true": txn.value(f"SELECT COUNT(*) FROM {table} WHERE f = :yes", yes=True),
        "like": txn.value(f"SELECT COUNT(*) FROM {table} WHERE t LIKE :p", p="b%"),
        "changed": txn.execute(f"UPDATE {table} SET f = 0 WHERE k < :k", k=3),
        "greatest": txn.value("SELECT {greatest}(CAST(:a AS {int}), CAST(:b AS {int}))", a=3, b=4),
        "missing": (
            txn.first(f"SELECT k FROM {table} WHERE k = :k", k=9),
            txn.value(f"SELECT MAX(k) FROM {table} WHERE 0 = 1"),
        ),
        "returning": txn.all(f"DELETE FROM {table} WHERE k = :k RETURNING t", k=1),
        "percent": txn.value("SELECT '100%s %'"),
    }


async def test_both_engines_answer_alike(db: Database, engine: Engine):
    def create(txn: WriteTxn) -> None:
        txn.execute("CREATE TABLE t (k {int} PRIMARY KEY, t {text}, b {bytes}, f {bool})")

    await db.write(create)
    assert await db.write(_exercise, "t") == {
        "all": [(1, "a", b"\0\xff", 1), (2, "B", b"", 0), (2**62, "é\U0001f600", None, 1)],
        "bytewise": [("B",), ("a",), ("é\U0001f600",)],
        "in": [(1,), (2**62,)],
        "bytes": [(1,), (2,)],
        "none of": 2,
        "empty": (0, 3),
        "pairs": [(1,)],
        "joined": [(1, "B"), (2, "a"), (3, "B")],
        "sum": 2,
        "true": 2,
        "like": 0,
        "changed": 2,
        "greatest": 4,
        "missing": (None, None),
        "returning": [("a",)],
        "percent": "100%s %",
    }

    def long_list(txn: ReadTxn) -> int:
        return txn.value("SELECT COUNT(*) FROM t WHERE k IN (:ks[])", ks=range(MAX_LIST_VALUES))

    assert await db.read(long_list) == 1
