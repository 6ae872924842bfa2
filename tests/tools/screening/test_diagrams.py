"""Phase diagrams that reports draw have the stable phases and facets of pymatgen's."""

from collections import Counter

import pytest
from pymatgen.analysis.phase_diagram import PDEntry
from pymatgen.analysis.phase_diagram import PhaseDiagram as Judge
from pymatgen.core import Composition

from hullward.tools.hull import Hull, Phase
from hullward.tools.records import PhaseDiagram
from hullward.tools.reference import read_embedded_once
from hullward.tools.screening.diagrams import HIGHEST_EV_PER_ATOM, phase_diagram

SYSTEMS = ["Li-O", "Al-Ni", "Mg-Sb", "Li-Mn-O", "Fe-O-P", "Al-Ni-Ti", "Cs-I-Sn", "Ba-O-Ti",
           "Fe-Na-O-P", "Br-Cs-I-Sn"]  # fmt: skip


@pytest.fixture(scope="module")
def embedded():
    return read_embedded_once()


def phases_of(embedded, system: str) -> list[Phase]:
    found = Phase(phase_id="c-1", formula="found", composition={}, energy_ev_per_atom=0, source="")
    first, second = system.split("-")[:2]
    amounts = {first: 1.0, second: 2.0}
    hull = embedded.hull(system)
    energy = hull.energies(hull.fractions([amounts]))[0] - 0.05
    update = {"composition": amounts, "formula": Composition(amounts).reduced_formula}
    return [
        *embedded.phases(system),
        found.model_copy(update={**update, "energy_ev_per_atom": float(energy)}),
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_stable_phases_and_facets_are_those_of_pymatgen(embedded, system) -> None:
    phases = phases_of(embedded, system)
    drawn = phase_diagram(Hull(phases), system, embedded)
    entries = [
        PDEntry(Composition(p.composition), p.energy_ev_per_atom * sum(p.composition.values()),
                name=p.phase_id)
        for p in phases
    ]  # fmt: skip
    judge = Judge(entries)
    stable = [p for p in drawn.phases if p.e_above_hull_ev_per_atom == 0.0]
    assert {p.phase_id for p in stable} == {e.name for e in judge.stable_entries}
    names = [[drawn.phases[i].phase_id for i in facet] for facet in drawn.facets]
    expected = [[judge.qhull_entries[i].name for i in facet] for facet in judge.facets]
    assert Counter(map(frozenset, names)) == Counter(map(frozenset, expected))
    energies = {e.name: judge.get_form_energy_per_atom(e) for e in entries}
    assert {p.phase_id: p.formation_energy_ev_per_atom for p in drawn.phases} == pytest.approx(
        {p.phase_id: energies[p.phase_id] for p in drawn.phases}, abs=1e-9
    )
    heights = {e.name: judge.get_e_above_hull(e) for e in entries}
    above = [p for p in drawn.phases if p.e_above_hull_ev_per_atom > 0]
    assert len({p.formula for p in drawn.phases}) == len(drawn.phases)
    for p in above:
        same = [q for q in phases if q.formula == p.formula]
        assert p.e_above_hull_ev_per_atom == pytest.approx(min(heights[q.phase_id] for q in same))
        assert p.e_above_hull_ev_per_atom <= HIGHEST_EV_PER_ATOM


def test_the_ground_states_of_elements_have_the_measured_ones_beside_them(embedded) -> None:
    drawn = phase_diagram(embedded.hull("Al-Ti"), "Al-Ti", embedded)
    elements = {p.formula: p for p in drawn.phases if p.formula in ("Al", "Ti")}
    assert {e: p.measured_space_groups for e, p in elements.items()} == {"Al": (225,), "Ti": (194,)}
    assert elements["Al"].space_group == 225
    assert elements["Ti"].space_group == 225  # CHGNet's fcc titanium
    assert PhaseDiagram.model_validate_json(drawn.model_dump_json()) == drawn
