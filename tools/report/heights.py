"""Heights above the hull in numbers that do not grow with a campaign: bins, cycles, potentials."""

from __future__ import annotations

import duckdb

from hullward.tools.records import Record
from hullward.tools.store import MEMBERS, fetch_records, fetch_rows

BIN_MEV = 25
LOWEST_MEV, HIGHEST_MEV = -100, 400  # what lies beyond is in the first and the last bin
FIRST, LAST = LOWEST_MEV // BIN_MEV - 1, HIGHEST_MEV // BIN_MEV

# Every judged structure once.
_STRUCTURES = "state = 'judged' AND duplicate_after IS NULL"


class HeightBin(Record):
    """How many judged structures lie in one range of heights, the upper end left out."""

    from_mev: int | None  # null: everything below `to_mev`
    to_mev: int | None  # null: everything from `from_mev` on
    reference: int  # by the height over the reference alone
    union: int  # by the height over the reference and this campaign
    union_new: int  # of these, new


class Heights(Record):
    """The histogram of heights, duplicates left out; without bins where nothing was judged."""

    structures: int = 0
    bins: tuple[HeightBin, ...] = ()


class CycleProgress(Record):
    """What the short list had up to a cycle; heights over the reference alone."""

    lowest_ev_per_atom: float | None = None  # of its own candidates; null: none is on the list
    best_so_far_ev_per_atom: float | None = None
    new_families: int = 0  # on the short list, first met in this cycle
    families_so_far: int = 0


class Comparison(Record):
    """One potential against the campaign's, over all candidates of which it has an energy."""

    potential: str
    relaxed: bool  # it relaxed them itself; otherwise it has the energies of the same structures
    count: int
    mean_ev_per_atom: float  # second minus first
    spread_ev_per_atom: float | None  # standard deviation; null for a single one


def gather_heights(connection: duckdb.DuckDBPyConnection) -> Heights:
    """Count the judged structures by height."""
    (structures,) = connection.execute(
        f"SELECT count(*) FROM results WHERE {_STRUCTURES}"
    ).fetchall()[0]
    rows = connection.execute(
        f"""WITH heights AS (
            SELECT unnest([
                {{'hull': 'reference', 'ev': e_above_reference_ev_per_atom}},
                {{'hull': 'union', 'ev': e_above_union_ev_per_atom}}
            ], recursive := true), novel FROM results WHERE {_STRUCTURES}
        )
        SELECT hull, least(greatest(floor(round(1000 * ev, 1) / {BIN_MEV}), {FIRST}), {LAST})::INT
            AS bin, count(*), count(*) FILTER (novel)
        FROM heights WHERE ev IS NOT NULL GROUP BY ALL"""
    ).fetchall()
    if not rows:
        return Heights(structures=structures)
    counts = {(hull, place): (n, new) for hull, place, n, new in rows}
    bins = []
    for place in range(FIRST, LAST + 1):
        union, new = counts.get(("union", place), (0, 0))
        bins.append(
            HeightBin(
                from_mev=None if place == FIRST else BIN_MEV * place,
                to_mev=None if place == LAST else BIN_MEV * (place + 1),
                reference=counts.get(("reference", place), (0, 0))[0],
                union=union,
                union_new=new,
            )
        )
    return Heights(structures=structures, bins=tuple(bins))


def gather_progress(connection: duckdb.DuckDBPyConnection) -> dict[str, CycleProgress]:
    """The short list by cycle, families counted in the cycle that first met them."""
    rows = fetch_rows(
        connection,
        f"""WITH listed AS (
            SELECT cycle, family_id, e_above_reference_ev_per_atom AS height,
                min(cycle) OVER (PARTITION BY family_id) AS met
            FROM results WHERE {MEMBERS}
        )
        SELECT cycle::VARCHAR AS name, min(height) AS lowest,
            count(DISTINCT family_id) FILTER (met = listed.cycle) AS families
        FROM (SELECT DISTINCT cycle FROM results) LEFT JOIN listed USING (cycle)
        GROUP BY cycle ORDER BY cycle""",
    )
    found, best, total = {}, None, 0
    for row in rows:
        lowest = row["lowest"]
        if lowest is not None:
            best = lowest if best is None else min(best, lowest)
        total += row["families"]
        found[row["name"]] = CycleProgress(
            lowest_ev_per_atom=lowest,
            best_so_far_ev_per_atom=best,
            new_families=row["families"],
            families_so_far=total,
        )
    return found


def gather_comparisons(connection: duckdb.DuckDBPyConnection) -> tuple[Comparison, ...]:
    """The potentials that computed energies of judged candidates beside the campaign's own."""
    return fetch_records(
        Comparison,
        connection,
        """SELECT potential, relaxed, count(*) AS count, avg(off) AS mean_ev_per_atom,
            stddev_samp(off) AS spread_ev_per_atom
        FROM (
            SELECT second_energy_by AS potential, false AS relaxed,
                second_energy_higher_ev_per_atom AS off FROM results WHERE state = 'judged'
            UNION ALL
            SELECT opinions.potential, true, difference_ev_per_atom
            FROM opinions JOIN bases USING (reference_id, reference_version)
        ) WHERE off IS NOT NULL GROUP BY ALL ORDER BY relaxed, potential""",
    )
