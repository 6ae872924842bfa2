"""Readings: another potential's energy of what the first one relaxed, on one scale."""

import math
from pathlib import Path

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import UNCORRECTED, PotentialCard, potential_card
from hullward.tools.hull import MP2020, correction_ev_per_atom
from hullward.tools.records import Protocol, Relaxation, SecondEnergy
from hullward.tools.reference import read_embedded_once
from hullward.tools.relax import Executor
from hullward.tools.relax.stream import relax_one
from hullward.tools.report.schema import ReportEntry
from hullward.tools.report.words import probability_words
from hullward.tools.uncertainty.second_energies import (
    NO_STEPS,
    SECOND,
    check_scales,
    second_energies_of,
    second_energy_features,
)


def rock_salt(cation: str, anion: str, a: float) -> Crystal:
    primitive = np.array([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
    return Crystal.from_arrays(primitive, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def relaxed_by(potential: str, crystal: Crystal, protocol: Protocol) -> Relaxation:
    from hullward.models.potential import load_potential

    return relax_one("c", crystal, load_potential(potential), protocol)


# eV a correction: DOI 10.1038/s41598-021-94550-5, table 1
@pytest.mark.parametrize(
    ("formula", "by_hand"),
    [
        ("NaCl", -0.614 / 2),
        ("MgO", -0.687 / 2),
        ("Fe2O3", (3 * -0.687 + 2 * -2.256) / 5),
        ("CaF2", 2 * -0.462 / 3),
        ("ZnS", -0.503 / 2),
        ("AlN", -0.361 / 2),
        ("Cu", 0.0),
        ("Na2O2", 2 * -0.465 / 4),  # a peroxide, told by its bonds
    ],
)
def test_corrections_are_those_published(formula: str, by_hand: float) -> None:
    from pymatgen.core import Composition

    elements = sorted(map(str, Composition(formula).get_el_amt_dict()))
    phases = read_embedded_once().phases("-".join(elements))
    phase = min(
        (p for p in phases if p.formula == formula and p.crystal is not None),
        key=lambda p: p.energy_ev_per_atom,
    )
    assert phase.crystal is not None
    assert correction_ev_per_atom(phase.crystal) == pytest.approx(by_hand, abs=2e-3)


def test_a_second_energy_by_the_same_potential_differs_by_nothing() -> None:
    done = relaxed_by("toy", rock_salt("Na", "Cl", 5.6), Protocol())
    (second,) = second_energies_of([done], "toy")
    assert second.higher_ev_per_atom == pytest.approx(0.0, abs=1e-6)
    assert second.correction_ev_per_atom == 0.0
    assert second.largest_force_ev_per_a == pytest.approx(done.residual_force_ev_per_a, abs=1e-6)
    assert second.failure == ""
    assert second.relaxation_id == done.relaxation_id


def test_nothing_moves_while_it_is_read() -> None:
    start = rock_salt("Na", "Cl", 7.0)  # far from its minimum
    stood = relaxed_by("toy", start, NO_STEPS)
    assert stood.steps == 0
    assert stood.force_calls == 1
    assert not stood.converged
    assert stood.failure is None
    assert stood.crystal is not None
    assert np.allclose(stood.crystal.lattice, start.lattice)
    assert np.allclose(stood.crystal.frac_coords, start.frac_coords)
    assert stood.energy_ev_per_atom == stood.initial_energy_ev_per_atom


def test_second_energies_are_computed_once_and_found_again(tmp_path: Path) -> None:
    done = [
        relaxed_by("toy", rock_salt("Na", "Cl", a), NO_STEPS).model_copy(
            update={"relaxation_id": f"r{k}"}
        )
        for k, a in enumerate((5.2, 5.6, 6.0, 6.4))
    ]
    first = list(second_energies_of(done, "toy", Executor(workers=0, home=tmp_path)))
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "relaxations").rglob("*.json")}
    again = list(second_energies_of(done, "toy", Executor(workers=0, home=tmp_path)))
    assert {r.relaxation_id for r in first} == {"r0", "r1", "r2", "r3"}
    spent = {r.relaxation_id: r.model_copy(update={"cpu_s": 0.0}) for r in first}
    assert spent == {r.relaxation_id: r for r in again}  # by somebody else
    assert len(files) == 4
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_second_energy_that_fails_has_a_reason() -> None:
    lonely = rock_salt("Na", "Cl", 40.0)  # no neighbours within any cut-off
    done = relaxed_by("toy", rock_salt("Na", "Cl", 5.6), NO_STEPS)
    (second,) = second_energies_of([done.model_copy(update={"crystal": lonely})], "toy")
    assert second.higher_ev_per_atom is None
    assert "neighbour" in second.failure
    with pytest.raises(ValueError, match="has no second energy"):
        second_energy_features(second)


def test_a_second_energy_needs_a_structure() -> None:
    done = relaxed_by("toy", rock_salt("Na", "Cl", 5.6), NO_STEPS)
    (second,) = second_energies_of([done.model_copy(update={"crystal": None})], "toy")
    assert second.failure == "the first potential left no structure"


def test_scales_that_do_not_meet_are_refused() -> None:
    stranger = PotentialCard(
        name="stranger",
        weights_sha256="0" * 64,
        energy_scheme="own:stranger",
        elements=frozenset({"Na"}),
        typical_error_ev_per_atom=None,
        typical_error_source="",
    )
    with pytest.raises(InputError, match="cannot be brought to the scale"):
        check_scales(MP2020, stranger)
    with pytest.raises(InputError, match="cannot be brought to the scale"):
        check_scales("toy", potential_card("chgnet-0.3.0"))


def test_features_are_bounded_and_finite() -> None:
    def features(higher: float, force: float) -> dict[str, float]:
        return second_energy_features(
            SecondEnergy(
                relaxation_id="r",
                potential="x",
                potential_sha256="0",
                energy_ev_per_atom=0.0,
                correction_ev_per_atom=0.0,
                higher_ev_per_atom=higher,
                largest_force_ev_per_a=force,
            )
        )

    assert features(7.0, 0.0)["read_higher_ev_per_atom"] == 0.5
    assert features(-7.0, 0.0)["read_higher_ev_per_atom"] == -0.5
    assert features(0.03, 0.0) == {
        "read_higher_ev_per_atom": 0.03,
        "read_log_force": pytest.approx(math.log(0.01)),
    }


@pytest.mark.parametrize(
    ("higher", "told"), [(0.0351, "35 meV/atom higher"), (-0.02, "20 meV/atom lower")]
)
def test_a_report_gives_the_second_energy_beside_the_probability(higher: float, told: str) -> None:
    entry = ReportEntry.model_construct(
        p_below_50mev=0.41,
        p_below_50mev_low=0.3,
        p_below_50mev_high=0.52,
        p_below_100mev=0.7,
        p_below_100mev_low=None,
        p_below_100mev_high=None,
        read_by=SECOND,
        read_higher_ev_per_atom=higher,
    )
    assert probability_words(entry) == (
        f"41 % (30–52 %) within 50 meV/atom, 70 % within 100; its energy by {SECOND} is {told} "
        "than by the potential that relaxed it"
    )


@pytest.fixture(scope="module")
def second() -> PotentialCard:
    try:
        return potential_card(SECOND)
    except PreflightError as error:
        pytest.skip(str(error))


def test_the_second_network_reads_known_phases_where_chgnet_puts_them(
    second: PotentialCard,
) -> None:
    """Salts that both learnt: their energies meet once the second's are corrected."""
    assert second.energy_scheme == UNCORRECTED
    done = [
        relaxed_by("chgnet-0.3.0", rock_salt(*cell), Protocol())
        for cell in (("Na", "Cl", 5.6), ("Mg", "O", 4.2), ("Fe", "O", 4.3))
    ]
    done = [r.model_copy(update={"relaxation_id": f"r{k}"}) for k, r in enumerate(done)]
    for second in second_energies_of(done, SECOND, Executor(workers=0)):
        assert second.failure == ""
        assert second.correction_ev_per_atom is not None
        assert second.correction_ev_per_atom < -0.3  # left out, they would lie this far apart
        assert second.higher_ev_per_atom == pytest.approx(0.0, abs=0.1)
