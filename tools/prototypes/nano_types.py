"""Structure types that the model `hullward-nano-cif` wrote: `data/prototypes_nano.parquet`.

`hullward.training.structure_types.build` makes the table. It stores each type as the text of the
asymmetric unit of its best example. The file is read on first use, and only types that fit a
formula are built, each once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hullward.models.errors import PreflightError
from hullward.tools.crystal import AnonymousFormula
from hullward.tools.crystal.text import parse_asymmetric_text
from hullward.tools.prototypes.library import Prototype, anonymous_formula, make_prototype
from hullward.tools.records import Flaw

NANO_TYPES = "prototypes_nano.parquet"
NANO_PREFIX = "nano:"
METADATA_KEY = b"hullward"  # key of the provenance in the file's metadata


@dataclass(frozen=True)
class TypeTable:
    """Rows, with their numbers by anonymous formula and by id."""

    rows: Sequence[Mapping[str, Any]]
    # how the table was made: model, questions, protocol, reference, counts
    about: Mapping[str, Any]
    by_anonymous: Mapping[AnonymousFormula, tuple[int, ...]]
    by_id: Mapping[str, int]


@cache
def nano_table() -> TypeTable:
    """The whole table. Raises PreflightError if the installation lacks it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = (files("hullward.data") / NANO_TYPES).read_bytes()
        read = pq.read_table(io.BytesIO(content))
        about = json.loads((read.schema.metadata or {})[METADATA_KEY])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise PreflightError(
            f"the structure types in data/{NANO_TYPES} cannot be read ({error}); install Hullward "
            "again"
        ) from None
    rows = read.to_pylist()
    numbers: dict[AnonymousFormula, list[int]] = {}
    for number, row in enumerate(rows):
        amounts = tuple(int(n) for n in row["anonymous"].split("-"))
        numbers.setdefault(amounts, []).append(number)
    return TypeTable(
        rows=rows,
        about=about,
        by_anonymous={amounts: tuple(found) for amounts, found in numbers.items()},
        by_id={row["prototype_id"]: number for number, row in enumerate(rows)},
    )


def nano_types_for(formulas: Iterable[str]) -> list[Prototype]:
    """Every type with the anonymous formula of one of these formulas, in the table's order."""
    wanted = dict.fromkeys(anonymous_formula(formula) for formula in formulas)
    numbers = sorted({n for amounts in wanted for n in nano_table().by_anonymous.get(amounts, ())})
    return [_nano_prototype(number) for number in numbers]


def nano_prototype(prototype_id: str) -> Prototype:
    """One type by its id. Raises KeyError for an unknown id."""
    return _nano_prototype(nano_table().by_id[prototype_id])


@cache
def _nano_prototype(number: int) -> Prototype:
    row = nano_table().rows[number]
    crystal = parse_asymmetric_text(row["text"])
    if isinstance(crystal, Flaw):  # the tests read every row, so only a damaged file gets here
        raise PreflightError(f"data/{NANO_TYPES}, {row['prototype_id']}: {crystal.detail}")
    return make_prototype(row["prototype_id"], crystal)
