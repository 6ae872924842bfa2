"""The base of all records: frozen, validated, units in names; ids, states and reasons.

A record never changes once written. What happened to a proposal follows from the records with
its id; the view `results` of `hullward.tools.store` derives its state from them.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# How many of something. Millions of the largest still sum up within 64 bits.
Count = Annotated[int, Field(ge=0, le=10**12)]


class Record(BaseModel):
    """Frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


def stable_id(prefix: str, *parts: Any) -> str:
    """An id made from content: the same parts give the same id.

    >>> stable_id("x", 1, {"b": 2, "a": [3]}) == stable_id("x", 1, {"a": [3], "b": 2})
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{prefix}-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


class State(StrEnum):
    """The state of a proposal. States are exclusive and sum to everything proposed."""

    REJECTED_PARSE = "rejected_parse"
    REJECTED_CHECK = "rejected_check"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    FAILED = "failed"
    UNCONVERGED = "unconverged"
    PENDING = "pending"
    HULL_PENDING = "hull_pending"
    JUDGED = "judged"


class Stage(StrEnum):
    """Where a proposal was rejected."""

    PARSE = "parse"
    CHECK = "check"


class Reason(StrEnum):
    """Why a proposal stopped. The values appear in tables, reports and prompts."""

    # parse
    EMPTY = "empty"
    PROSE = "prose"  # words instead of a structure
    REPETITION = "repetition"  # the same lines again and again
    TRUNCATED = "truncated"
    BAD_LENGTHS = "bad_lengths"
    BAD_ANGLES = "bad_angles"
    BAD_SPACE_GROUP = "bad_space_group"
    BAD_ELEMENT_LINE = "bad_element_line"
    BAD_COORDINATE_LINE = "bad_coordinate_line"
    TRAILING_TEXT = "trailing_text"
    NO_SITES = "no_sites"
    IMPOSSIBLE_CELL = "impossible_cell"
    MALFORMED_ROW = "malformed_row"
    BAD_CIF = "bad_cif"
    DISORDERED = "disordered"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    # check
    UNKNOWN_ELEMENT = "unknown_element"
    UNSUPPORTED_ELEMENT = "unsupported_element"
    FORBIDDEN_ELEMENT = "forbidden_element"
    ELEMENT_COUNT = "element_count"
    ATOM_COUNT = "atom_count"
    ATOMS_TOO_CLOSE = "atoms_too_close"
    ATOM_ISOLATED = "atom_isolated"
    VOLUME_TOO_SMALL = "volume_too_small"
    VOLUME_TOO_LARGE = "volume_too_large"
    CELL_TOO_FLAT = "cell_too_flat"
    CHARGE_UNBALANCED = "charge_unbalanced"
    # relax
    NON_FINITE = "non_finite"
    EXPLODED = "exploded"
    COLLAPSED = "collapsed"
    CLASH = "clash"
    STALLED = "stalled"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_DIED = "worker_died"
    POTENTIAL_ERROR = "potential_error"


class Flaw(Record):
    """What is wrong with an input, before it belongs to a proposal."""

    reason: Reason
    detail: str
