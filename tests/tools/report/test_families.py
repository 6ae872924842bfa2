"""Families of the short list: what is folded, and the hint on disorder."""

import math

import duckdb
import pytest

from hullward.tools.report.families import gather_families, merged, mixing_mev_per_atom

COLUMNS = (
    "family_id, candidate_id, formula, energy_ev_per_atom, rediscovered, unmatched, metastable, "
    "relaxation_id, represents_family, state, duplicate_after, family_size"
)


def gathered(rows, shared=("Li Mn",)):
    """rows: (energy in meV/atom, rediscovered as, listed)."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE families (relaxation_id VARCHAR, shared VARCHAR[])")
        connection.execute(
            "CREATE TABLE results (family_id VARCHAR, candidate_id VARCHAR, formula VARCHAR, "
            "energy_ev_per_atom DOUBLE, rediscovered VARCHAR, unmatched BOOLEAN, "
            "metastable BOOLEAN, relaxation_id VARCHAR, represents_family BOOLEAN, state VARCHAR, "
            "duplicate_after VARCHAR, family_size BIGINT)"
        )
        first = min((r for r in rows if r[2]), default=None)
        for n, row in enumerate(rows):
            energy, known, listed = row
            connection.execute("INSERT INTO families VALUES (?, ?)", [f"r-{n}", list(shared)])
            connection.execute(
                f"INSERT INTO results ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ["f", f"c-{n}", "LiMn2O3", energy / 1000, known, known is None, listed, f"r-{n}",
                 row == first, "judged", None, len(rows)],
            )  # fmt: skip
        return gather_families(connection, ["f"]).get("f")


def test_orderings_are_folded_and_called_likely_disordered():
    found = gathered([(float(e), None, True) for e in (3, 4, 5, 7, 8, 10, 12)])
    assert found.words == (
        "7 orderings of one lattice within 9 meV/atom: likely disordered (hint: ideal mixing of "
        "Li/Mn would lower the free energy by 8.2 meV/atom at 300 K)"
    )
    assert [m.candidate_id for m in found.folded] == [f"c-{n}" for n in range(1, 7)]
    assert found.folded[-1].higher_mev_per_atom == pytest.approx(9)


@pytest.mark.parametrize(
    ("energies", "words"),
    [
        ((0, 30), "may be disordered at synthesis temperatures"),
        ((0, 90), None),
    ],
)
def test_a_wide_family_is_not_called_disordered(energies, words):
    found = gathered([(float(e), None, True) for e in energies]).words
    assert "likely" not in found
    assert "disordered" not in found if words is None else words in found


def test_without_an_exchange_there_is_nothing_to_mix():
    found = gathered([(0.0, None, True), (2.0, None, True)], shared=())
    assert found.words == "2 distortions of one lattice within 2 meV/atom"
    assert found.entropy_mev_per_atom == 0


def test_a_known_phase_of_the_family_is_named():
    found = gathered([(0.0, "mp-7", False), (5.0, None, True), (400.0, None, False)])
    assert found.words == "same lattice as the known phase mp-7, 5 meV/atom lower"
    assert (found.size, found.folded) == (1, ())
    assert gathered([(0.0, "mp-7", False), (5.0, None, False)]) is None


def test_the_entropy_is_that_of_ideal_mixing():
    half = mixing_mev_per_atom({"Cu": 1, "Au": 1}, [("Au", "Cu")], 300)
    assert half == pytest.approx(8.617333e-2 * 300 * math.log(2))
    both = mixing_mev_per_atom({"A": 1, "B": 1, "C": 1, "D": 1, "O": 6}, ["AB", "CD"], 300)
    assert both == pytest.approx(half * 0.4)
    assert merged(["Li Mn", "Fe Mn", "O F"]) == [("F", "O"), ("Fe", "Li", "Mn")]
