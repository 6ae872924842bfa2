"""The stored keys: exact, whatever their hashes are."""

import duckdb
import pytest

from hullward.tools.store import keys as module
from hullward.tools.store.keys import _Keys


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (name VARCHAR, n INTEGER)")
        connection.execute("INSERT INTO t VALUES ('Å b', 1), ('c', -2)")
        yield connection


@pytest.fixture
def stored(connection):
    return _Keys(connection, "FROM t", ("name", "n"))


def test_the_rows_of_the_database_are_there(stored):
    assert ("Å b", 1) in stored
    assert stored.refers(("c", -2))
    assert ("Å b", -2) not in stored
    assert not stored.refers(("c", 2))


def test_a_key_is_there_once_it_is_added_until_it_is_taken_back(stored):
    stored.add(("d", 3))
    assert ("d", 3) in stored
    stored.discard(("d", 3))
    assert ("d", 3) not in stored


def test_what_was_added_is_there_after_it_is_shortened(connection, stored, monkeypatch):
    monkeypatch.setattr(module, "_MOST_RECENT", 1)
    for n in range(3):
        stored.add(("e", n))
        connection.execute("INSERT INTO t VALUES ('e', ?)", [n])
    stored.settle()
    assert all(("e", n) in stored for n in range(3))
    assert ("Å b", 1) in stored


def test_two_keys_with_one_hash_are_told_apart(connection, monkeypatch):
    monkeypatch.setattr(module, "_HASH", "7::UBIGINT")
    monkeypatch.setattr(module, "_hash_of", lambda key: 7)
    stored = _Keys(connection, "FROM t", ("name", "n"))
    assert ("c", -2) in stored
    assert ("other", 5) not in stored
