"""The families behind the entries of the short list: how many orderings, how close, how disordered.

The hint on disorder compares two energies. A random arrangement lies about as high as the mean of
the orderings found; mixing gains at most T S, with S the ideal configurational entropy

    S = -k_B / N  sum_g  sum_s in g  n_s ln(n_s / n_g)

over groups g of elements that exchange sites in the family, n_s atoms of element s of n_g on these
sites, N atoms in all (Hill, An Introduction to Statistical Thermodynamics, 1960, chapter 20). It
assumes that every site of a group takes every element of it with one probability, without
short-range order, and leaves vibrations out: an upper bound of one term, no prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from hullward.tools.records import Record
from hullward.tools.store import MEMBERS, fetch_rows

BOLTZMANN_MEV_PER_K = 0.08617333
ROOM_K = 300.0
SYNTHESIS_K = 1000.0  # of a solid-state synthesis
LISTED = 20  # folded members listed of a family


class FoldedMember(Record):
    """A member of a family that the short list does not show."""

    candidate_id: str
    higher_mev_per_atom: float  # than the one shown


class Family(Record):
    """The family of one entry."""

    family_id: str
    size: int  # short-listed members, the one shown included
    spread_mev_per_atom: float  # from the lowest to the highest of them
    shared: tuple[str, ...]  # groups of elements that exchange sites: 'Li Mn'
    entropy_mev_per_atom: float  # T S at 300 K, ideal; 0 where nothing is exchanged
    known: str = ""  # a known phase of the family
    known_higher_mev_per_atom: float | None = None  # than the one shown
    folded: tuple[FoldedMember, ...] = ()
    words: str = ""


def gather_families(
    connection: duckdb.DuckDBPyConnection, family_ids: Iterable[str]
) -> dict[str, Family]:
    """The families of these ids that have more than one member."""
    rows = fetch_rows(
        connection,
        f"""SELECT r.family_id, r.candidate_id, r.formula, r.energy_ev_per_atom, r.rediscovered,
                coalesce({MEMBERS}, false) AS listed, f.shared, r.represents_family
            FROM results r LEFT JOIN families f USING (relaxation_id)
            WHERE r.state = 'judged' AND r.duplicate_after IS NULL AND r.family_size > 1
                AND r.family_id IN (SELECT unnest($ids::VARCHAR[]))
            ORDER BY r.energy_ev_per_atom, r.candidate_id""",
        {"ids": list(family_ids)},
    )
    by_family: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_family.setdefault(row["family_id"], []).append(row)
    found = {name: _family(name, members) for name, members in by_family.items()}
    return {name: family for name, family in found.items() if family is not None}


def _family(family_id: str, rows: list[dict[str, Any]]) -> Family | None:
    shown = next((row for row in rows if row["represents_family"] and row["listed"]), None)
    if shown is None:
        return None
    base = shown["energy_ev_per_atom"]
    listed = [row for row in rows if row["listed"]]
    higher = [1000 * (row["energy_ev_per_atom"] - base) for row in listed]
    known = next((row for row in rows if row["rediscovered"]), None)
    groups = merged(group for row in listed for group in row["shared"] or ())
    family = Family(
        family_id=family_id,
        size=len(listed),
        spread_mev_per_atom=max(higher),
        shared=tuple(" ".join(group) for group in groups),
        entropy_mev_per_atom=mixing_mev_per_atom(_amounts(shown["formula"]), groups, ROOM_K),
        known=known["rediscovered"] if known else "",
        known_higher_mev_per_atom=1000 * (known["energy_ev_per_atom"] - base) if known else None,
        folded=tuple(
            FoldedMember(candidate_id=row["candidate_id"], higher_mev_per_atom=more)
            for row, more in zip(listed, higher, strict=True)
            if row is not shown
        )[:LISTED],
    )
    mean = sum(higher) / len(higher)
    words = "; ".join(filter(None, (_orderings(family, mean), _of_known(family))))
    return family.model_copy(update={"words": words}) if words else None


def _orderings(family: Family, mean_mev_per_atom: float) -> str:
    if family.size < 2:
        return ""
    what = "orderings" if family.shared else "distortions"
    words = f"{family.size} {what} of one lattice within {_whole(family.spread_mev_per_atom)}"
    words += " meV/atom"
    if not family.shared:
        return words
    gain = family.entropy_mev_per_atom
    if mean_mev_per_atom <= gain:
        words += ": likely disordered"
    elif mean_mev_per_atom <= gain * SYNTHESIS_K / ROOM_K:
        words += ": may be disordered at synthesis temperatures"
    mixing = " and ".join("/".join(group.split()) for group in family.shared)
    return (
        f"{words} (hint: ideal mixing of {mixing} would lower the free energy by {gain:.1f} "
        f"meV/atom at {ROOM_K:.0f} K)"
    )


def _of_known(family: Family) -> str:
    higher = family.known_higher_mev_per_atom
    if not family.known or higher is None:
        return ""
    where = "higher" if higher >= 0 else "lower"
    return f"same lattice as the known phase {family.known}, {_whole(abs(higher))} meV/atom {where}"


def _whole(mev: float) -> str:
    return f"{math.ceil(round(mev, 3))}"


def merged(groups: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of elements, those with a common element as one."""
    found: list[set[str]] = []
    for group in groups:
        joined = set(group.split())
        for other in [one for one in found if one & joined]:
            found.remove(other)
            joined |= other
        found.append(joined)
    return sorted(tuple(sorted(group)) for group in found)


def mixing_mev_per_atom(
    amounts: Mapping[str, float], groups: Iterable[Iterable[str]], temperature_k: float
) -> float:
    """T S of ideal mixing in meV/atom; the formula and what it assumes are in the module.

    >>> round(mixing_mev_per_atom({"Li": 1, "Mn": 2, "O": 3}, [("Li", "Mn")], 300), 2)
    8.23
    """
    entropy = 0.0
    for group in groups:
        numbers = [amounts[s] for s in group]
        entropy -= sum(n * math.log(n / sum(numbers)) for n in numbers)
    return BOLTZMANN_MEV_PER_K * temperature_k * entropy / sum(amounts.values())


def _amounts(formula: str) -> dict[str, float]:
    from hullward.tools.crystal import parse_formula

    return dict(parse_formula(formula))
