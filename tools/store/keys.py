"""Which keys are stored: they make adding idempotent and show what could not be counted.

A campaign of a hundred thousand candidates has more than a million keys. They are kept as 8 bytes
each, so that memory hardly grows with what is stored; where two keys could share these, the
database decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np

from hullward.models.errors import InputError
from hullward.tools.store.projection import REFERENCES, CountingError, Key, key_of
from hullward.tools.store.tables import TABLES

_HASH = "md5_number_lower(concat_ws(chr(31), {columns}))"
_MOST_RECENT = 20_000  # keys kept whole
_OWNED = ("CampaignRecord", "Basis", "SecondReference")  # these name the campaign


class _Keys:
    """A set of keys: those of some rows of the database, and those added since."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, source: str, columns: tuple[str, ...]
    ) -> None:
        self._connection = connection
        self._hash = _HASH.format(columns=", ".join(f'"{column}"' for column in columns))
        where = " AND ".join(f'"{column}" = ?' for column in columns)
        self._find = f"SELECT 1 FROM ({source}) WHERE {where} LIMIT 1"
        found = connection.execute(f"SELECT {self._hash} AS hash FROM ({source})").fetchnumpy()
        self._stored = np.sort(np.asarray(found["hash"], dtype=np.uint64))
        self._recent: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        """Whether a key is there; exact."""
        if key in self._recent:
            return True
        return (
            self._may_hold(key) and self._connection.execute(self._find, key).fetchone() is not None
        )

    def refers(self, key: Key) -> bool:
        """Whether a key is there; wrong once in 10^12 keys that are not."""
        return key in self._recent or self._may_hold(key)

    def add(self, key: Key) -> None:
        self._recent.add(key)

    def discard(self, key: Key) -> None:
        """Remove a key that was added since the last `settle`."""
        self._recent.discard(key)

    def settle(self) -> None:
        """Shorten what was added; it must be on its way into the database."""
        if len(self._recent) > _MOST_RECENT:
            more = np.array([_hash_of(key) for key in self._recent], dtype=np.uint64)
            self._stored = np.sort(np.concatenate([self._stored, more]))
            self._recent.clear()

    def _may_hold(self, key: Key) -> bool:
        value = np.uint64(_hash_of(key))
        place = int(np.searchsorted(self._stored, value))
        return place < len(self._stored) and bool(self._stored[place] == value)


def _hash_of(key: Key) -> int:
    """As `_HASH` in SQL."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")


class Index:
    """The stored keys of every kind, with what is staged: noted, but not yet in the journal."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """That of an open database."""
        self._keys = {
            # the table of candidates holds the first proposal of each crystal only
            kind: _Keys(
                connection,
                "FROM proposals WHERE candidate_id IS NOT NULL"
                if kind == "Candidate"
                else f"FROM {table.name}",
                table.key,
            )
            for kind, table in TABLES.items()
        }
        self._candidate_ids = _Keys(connection, "FROM candidates", ("candidate_id",))
        owners = "SELECT campaign_id FROM campaigns UNION SELECT campaign_id FROM bases"
        self._owners = {owner for (owner,) in connection.execute(owners).fetchall()}
        self._staged: list[tuple[_Keys, Key]] = []
        self._staged_owner: str | None = None

    def stage(self, kind: str, data: Mapping[str, Any]) -> bool:
        """Note a record that will be stored; False if one with its key is stored already.

        Raises CountingError (InputError for another campaign) when it cannot be stored.
        """
        table = TABLES[kind]
        key, keys = key_of(table, data), self._keys[kind]
        # new content replaces the old, so that it need not be looked for in the database
        if keys.refers(key) if table.latest else key in keys:
            return table.latest
        self._check(kind, data)
        self._note(self._keys[kind], key)
        if kind == "Candidate" and not self._candidate_ids.refers((data["candidate_id"],)):
            self._note(self._candidate_ids, (data["candidate_id"],))
        if kind in _OWNED and not self._owners:
            self._staged_owner = data["campaign_id"]
            self._owners.add(data["campaign_id"])
        return True

    def commit(self) -> None:
        """What is staged is in the journal."""
        self._staged.clear()
        self._staged_owner = None
        for keys in (*self._keys.values(), self._candidate_ids):
            keys.settle()

    def discard(self) -> None:
        """Forget the records staged since the last commit."""
        for keys, key in self._staged:
            keys.discard(key)
        self._staged.clear()
        self._owners.discard(self._staged_owner or "")
        self._staged_owner = None

    def _note(self, keys: _Keys, key: Key) -> None:
        keys.add(key)
        self._staged.append((keys, key))

    def _check(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind in _OWNED:
            self._one_campaign(data["campaign_id"])
        for needed, column in REFERENCES.get(kind, ()):
            if (needed, column) == ("Candidate", "candidate_id"):
                if not self._candidate_ids.refers((data[column],)):
                    raise CountingError(
                        f"a {kind} of candidate {data[column]}, which is not stored"
                    )
            elif not self._keys[needed].refers((data[column],)):
                raise CountingError(f"a {kind} of {data[column]}, of which no {needed} is stored")
        opposite = {"Rejection": "Candidate", "Candidate": "Rejection"}.get(kind)
        if opposite and (data["proposal_id"],) in self._keys[opposite]:
            raise CountingError(
                f"proposal {data['proposal_id']} cannot be rejected and a candidate"
            )

    def _one_campaign(self, campaign_id: str) -> None:
        if self._owners - {campaign_id}:
            raise InputError(
                f"this directory belongs to {', '.join(sorted(self._owners))}, not to "
                f"{campaign_id}; choose another directory"
            )
