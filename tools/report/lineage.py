"""What an entry was made from, back to the known phase, structure type or model it began with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import duckdb

from hullward.tools.records import Record
from hullward.tools.report.names import short_id
from hullward.tools.store import fetch_rows

LONGEST = 12  # steps of a line that are listed
PROTOTYPE = "prototype:"


class Ancestor(Record):
    """One step of a line: what was proposed, how, and in which cycle; or where the line begins."""

    name: str  # id of a candidate or a known phase, or name of a structure type
    kind: Literal["candidate", "known phase", "structure type"]
    formula: str | None = None  # of a candidate
    operator: str | None = None  # that made it
    cycle: int | None = None
    written_by: str | None = None  # a language model
    others: tuple[str, ...] = ()  # its other parents


class Lineage(Record):
    """The line of first parents of one entry, nearest first; the entry itself is left out."""

    written_by: str | None = None  # the language model that wrote the entry itself
    ancestors: tuple[Ancestor, ...] = ()
    cut: bool = False  # there are more of them


def gather_lineages(
    connection: duckdb.DuckDBPyConnection, candidate_ids: Sequence[str]
) -> dict[str, Lineage]:
    """The lines of some candidates, by id."""
    made: dict[str, dict[str, Any]] = {}
    wanted = set(candidate_ids)
    for _ in range(LONGEST + 2):
        if not wanted:
            break
        rows = fetch_rows(
            connection,
            """SELECT c.candidate_id, c.formula, p.operator, p.cycle, p.parents, p.model
               FROM candidates c JOIN proposals p USING (proposal_id)
               WHERE list_contains($ids, c.candidate_id)""",
            {"ids": sorted(wanted)},
        )
        made |= {row["candidate_id"]: row for row in rows}
        wanted = {parent for row in rows for parent in (row["parents"] or ())[:1]} - made.keys()
    return {i: _line(made[i], made) for i in candidate_ids if i in made}


def _line(entry: dict[str, Any], made: dict[str, dict[str, Any]]) -> Lineage:
    found: list[Ancestor] = []
    parents = entry["parents"] or ()
    while parents:
        if len(found) == LONGEST:
            return Lineage(written_by=entry["model"], ancestors=tuple(found), cut=True)
        first = parents[0]
        row = made.get(first)
        if row is None:
            type_name = first.removeprefix(PROTOTYPE)
            kind: Literal["known phase", "structure type"] = "known phase"
            if type_name != first:
                kind = "structure type"
            found.append(Ancestor(name=type_name, kind=kind))
            break
        parents = row["parents"] or ()
        found.append(
            Ancestor(
                name=first,
                kind="candidate",
                formula=row["formula"],
                operator=row["operator"],
                cycle=row["cycle"],
                written_by=row["model"],
                others=tuple(parents[1:]),
            )
        )
    return Lineage(written_by=entry["model"], ancestors=tuple(found))


def lineage_words(operator: str, cycle: int, parents: Sequence[str], lineage: Lineage) -> str:
    """'swap in cycle 2, from c-4d10d3d6 LiMnO2 (perturbation in cycle 1), from the known phase …'.

    parents: of the entry, for where its line is not known.
    """
    words = _made(operator, cycle, lineage.written_by)
    if not lineage.ancestors:
        ids = ", ".join(short_id(parent.removeprefix(PROTOTYPE)) for parent in parents)
        return f"{words}, from {ids}" if ids else words
    words += _also(parents[1:])
    for step in lineage.ancestors:
        if step.operator is not None and step.cycle is not None:
            how = _made(step.operator, step.cycle, step.written_by)
            words += f", from {short_id(step.name)} {step.formula} ({how}{_also(step.others)})"
        else:
            words += f", from the {step.kind} {step.name}"
    return words + (", and so on" if lineage.cut else "")


def _made(operator: str, cycle: int, model: str | None) -> str:
    how = f"{operator.replace('_', ' ')} in cycle {cycle}"
    return f"{how}, written by {model.rsplit('/', 1)[-1]}" if model else how


def _also(others: Sequence[str]) -> str:
    return f" with {', '.join(map(short_id, others))}" if others else ""
