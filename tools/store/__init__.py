"""One campaign directory on disk: an append-only journal, and DuckDB as its projection.

Every record is fsynced to the journal before it counts. The database can be rebuilt from it, and
lost lines of it from the database. Readers open published snapshots, each replaced as a whole. This
package stores, counts and queries records; what they mean is decided elsewhere.

Start with `Store`; `funnel` counts, `query` answers SQL, `inbox` takes commands, `lock` names the
writer, `SHORT_LIST` is the rule of the short list. A new column of `results` is added in `views`, a
new kind of record in `tables`.
"""

from hullward.tools.store import funnel, inbox, lock, query
from hullward.tools.store.campaign_store import Store, open_snapshot, read_first, rebuild
from hullward.tools.store.files import sealed, sweep, timestamp, unsealed, write_whole
from hullward.tools.store.funnel import APART, FAMILIES, NESTED, NOVEL, count, stage_words
from hullward.tools.store.journal import StorageError
from hullward.tools.store.projection import decode, fetch_records, fetch_rows
from hullward.tools.store.short_list import (
    MEMBERS,
    ORDER_BEFORE_OPINIONS,
    SHORT_LIST,
    SHORT_LIST_ORDER,
    SHORT_LIST_RULE,
    SYSTEMS_DRAWN,
    ranking,
    systems_to_draw,
)
from hullward.tools.store.tables import TABLES

__all__ = [
    "APART",
    "FAMILIES",
    "MEMBERS",
    "NESTED",
    "NOVEL",
    "ORDER_BEFORE_OPINIONS",
    "SHORT_LIST",
    "SHORT_LIST_ORDER",
    "SHORT_LIST_RULE",
    "SYSTEMS_DRAWN",
    "TABLES",
    "StorageError",
    "Store",
    "count",
    "decode",
    "fetch_records",
    "fetch_rows",
    "funnel",
    "inbox",
    "lock",
    "open_snapshot",
    "query",
    "ranking",
    "read_first",
    "rebuild",
    "sealed",
    "stage_words",
    "sweep",
    "systems_to_draw",
    "timestamp",
    "unsealed",
    "write_whole",
]
