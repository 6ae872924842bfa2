"""The hull: equal to pymatgen's PhaseDiagram, on real entries and on random systems."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from hullward.models.errors import InputError
from hullward.tools.hull import Hull, Phase
from hullward.tools.reference import load_reference


def phase(formula: str, energy: float, name: str = "", is_phase: bool = True) -> Phase:
    return Phase(
        phase_id=name or formula,
        formula=Composition(formula).reduced_formula,
        composition=Composition(formula).get_el_amt_dict(),
        energy_ev_per_atom=energy,
        source="test",
        is_phase=is_phase,
    )


def diagram(phases: list[Phase]) -> PhaseDiagram:
    return PhaseDiagram(
        [
            ComputedEntry(
                Composition(p.composition),
                p.energy_ev_per_atom * sum(p.composition.values()),
                entry_id=p.phase_id,
            )
            for p in phases
        ]
    )


def assert_same(phases: list[Phase], asked: list[tuple[dict[str, float], float]]) -> None:
    """Signed heights equal to 1e-9 eV/atom; the decomposition explains the hull energy."""
    hull, ours = diagram(phases), Hull(phases)
    energies = {p.phase_id: p.energy_ev_per_atom for p in phases}
    for composition, energy in asked:
        candidate = ComputedEntry(
            Composition(composition), energy * sum(composition.values()), entry_id="candidate"
        )
        theirs, height = hull.get_decomp_and_e_above_hull(candidate, allow_negative=True)
        distance = ours.distance(composition, energy)
        assert distance.e_above_hull_ev_per_atom == pytest.approx(height, abs=1e-9)
        shares = {p.phase_id: p.fraction for p in distance.decomposition}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)
        mixed = sum(share * energies[name] for name, share in shares.items())
        assert mixed == pytest.approx(energy - height, abs=1e-9)
        expected = {entry.entry_id: share for entry, share in theirs.items()}
        if set(shares) == set(expected):  # four phases in one plane may be split in two ways
            assert shares == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def li_fe_p_o(shared_data):
    """Every entry the Materials Project had of the system."""
    return load_reference(f"file:{shared_data / 'hull' / 'mp_entries_Li-Fe-P-O.jsonl.zst'}")


@pytest.mark.parametrize("system", ["Li-Fe-P-O", "Li-Fe-O", "Li-O", "O"])
def test_real_entries_give_phase_diagrams_heights_and_products(li_fe_p_o, system):
    phases = list(li_fe_p_o.phases(system))
    asked = [(p.composition, p.energy_ev_per_atom - 0.05 * (i % 3)) for i, p in enumerate(phases)]
    assert_same(phases, asked[:: 1 + len(asked) // 300])


def test_real_decompositions_are_phase_diagrams_own(li_fe_p_o):
    phases = list(li_fe_p_o.phases("Li-Fe-P-O"))
    hull, ours = diagram(phases), Hull(phases)
    for p in phases[::7]:
        theirs = hull.get_decomposition(Composition(p.composition))
        products = {x.phase_id: x.fraction for x in ours.decompose(p.composition)}
        assert products == pytest.approx({e.entry_id: f for e, f in theirs.items()}, abs=1e-9)


ELEMENTS = ("Li", "Mn", "Fe", "P", "O")


@st.composite
def systems(draw):
    """Elements, random compounds, and compositions to ask about, subsystems included."""
    n = draw(st.integers(1, 5))
    amounts = st.lists(st.integers(0, 6), min_size=n, max_size=n).filter(any)
    energy = st.floats(-4, 1, allow_nan=False)
    rows = draw(st.lists(st.tuples(amounts, energy), max_size=30))
    asked = draw(st.lists(st.tuples(amounts, energy), min_size=1, max_size=8))
    zeros = [draw(st.floats(-9, 0)) for _ in range(n)]
    return n, zeros, rows, asked


@settings(max_examples=60, deadline=None)
@given(systems())
def test_random_systems_agree_with_phase_diagram(system):
    n, zeros, rows, asked = system
    elements = ELEMENTS[:n]

    def composition(amounts):
        return {el: float(a) for el, a in zip(elements, amounts, strict=True) if a}

    phases = [phase(el, e, f"zero-{el}") for el, e in zip(elements, zeros, strict=True)]
    for number, (amounts, formation) in enumerate(rows):
        c = composition(amounts)
        total = sum(c.values())
        zero = sum(zeros[elements.index(el)] * a for el, a in c.items()) / total
        phases.append(
            Phase(
                phase_id=f"p{number}",
                formula=Composition(c).reduced_formula,
                composition=c,
                energy_ev_per_atom=zero + formation,
                source="test",
            )
        )
    assert_same(phases, [(composition(a), e) for a, e in asked])


def test_a_candidate_below_the_hull_is_negative_and_not_part_of_it():
    hull = Hull([phase("Li", -1.0), phase("O", -4.0), phase("Li2O", -5.0)])
    below = hull.distance({"Li": 2, "O": 1}, -5.1)
    assert below.e_above_hull_ev_per_atom == pytest.approx(-0.1)
    assert [p.formula for p in below.decomposition] == ["Li2O"]


def test_many_compositions_are_one_product():
    hull = Hull([phase("Li", -1.0), phase("O", -4.0), phase("Li2O", -5.0)])
    grid = np.array([[x, 1 - x] for x in np.linspace(0, 1, 11)])
    one_by_one = [hull.energies(row[None])[0] for row in grid]
    assert hull.energies(grid) == pytest.approx(one_by_one)


def test_a_phase_less_stable_than_its_elements_changes_nothing():
    phases = [phase("Li", -1.0), phase("O", -4.0)]
    worse = [*phases, phase("LiO2", -2.9)]
    assert Hull(worse).distance({"Li": 1, "O": 2}, -3.0) == Hull(phases).distance(
        {"Li": 1, "O": 2}, -3.0
    )


def test_a_tie_line_point_is_split_into_the_phases_that_explain_it():
    phases = [
        phase("Li", 0.0),
        phase("O", 0.0),
        phase("Li2O", -2.0),
        phase("LiO", -1.5 - 0.005, "point", is_phase=False),
    ]
    products = Hull(phases).decompose({"Li": 1, "O": 1})
    assert {p.formula for p in products} == {"Li2O", "O2"}


def test_a_tie_line_point_no_phases_explain_is_named_for_what_it_is():
    phases = [
        phase("Li", 0.0),
        phase("O", 0.0),
        phase("Li2O", -2.0),
        phase("LiO", -1.8, "point", is_phase=False),
    ]
    (product,) = Hull(phases).decompose({"Li": 1, "O": 1})
    assert product.formula == "(hull point) Li2O2"  # pymatgen's spelling


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "empty system"),
        ([phase("Li2O", -2.0)], "no phase of Li, O"),
        ([phase("Li", 0.0), phase("Li2O", -2.0)], "no phase of O"),
    ],
)
def test_an_element_without_a_phase_is_named(phases, message):
    with pytest.raises(InputError, match=message):
        Hull(phases)


def test_a_composition_outside_the_system_is_refused():
    hull = Hull([phase("Li", 0.0), phase("O", 0.0)])
    with pytest.raises(InputError, match="not in the system"):
        hull.distance({"Na": 1.0}, 0.0)


def test_order_of_phases_does_not_matter():
    phases = [phase("Li", 0.0), phase("O", 0.0), phase("Li2O", -2.0, "b"), phase("Li2O", -2.0, "a")]
    answers = {
        Hull(list(order)).decompose({"Li": 1, "O": 1}) for order in itertools.permutations(phases)
    }
    assert len(answers) == 1


# -- many at once, and what is degenerate -------------------------------------------------------


@st.composite
def degenerate_systems(draw):
    """Two to six elements; many points exactly on tie lines and faces of others, some twice."""
    n = draw(st.integers(2, 6))
    amounts = st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(any)
    corners = draw(st.lists(st.tuples(amounts, st.floats(-3, -0.1)), min_size=1, max_size=6))
    weights = st.lists(
        st.integers(0, 3), min_size=len(corners), max_size=len(corners)
    ).filter(any)  # fmt: skip
    mixtures = draw(st.lists(weights, max_size=12))
    noise = draw(st.sampled_from([0.0, 1e-13, 1e-11, -1e-13]))
    rows = [(np.array(a), e * sum(a)) for a, e in corners]
    for w in mixtures:  # energies and amounts add: an exact point of the face
        mixed = sum(k * a for k, (a, _) in zip(w, rows, strict=False))
        total = sum(k * e for k, (_, e) in zip(w, rows, strict=False))
        rows.append((mixed, total + noise * mixed.sum()))
    rows += draw(st.lists(st.sampled_from(rows), max_size=3))  # the same again
    rows += [(np.array(a), 0.3 * sum(a)) for a in draw(st.lists(amounts, max_size=2))]  # above
    return n, rows, draw(st.lists(amounts, min_size=1, max_size=6))


@settings(max_examples=120)
@given(degenerate_systems())
def test_degenerate_systems_agree_with_phase_diagram(system):
    n, rows, extra = system
    elements = (*ELEMENTS, "F")[:n]
    contents = [({el: 1.0}, -1.0 - i) for i, el in enumerate(elements)]
    zeros = np.array([energy for _, energy in contents])
    for amounts, formation in rows:
        content = {el: float(a) for el, a in zip(elements, amounts, strict=True) if a}
        contents.append((content, float(amounts @ zeros + formation) / float(amounts.sum())))
    phases = [
        Phase(
            phase_id=f"p{number}",
            formula=Composition(content).reduced_formula,
            composition=content,
            energy_ev_per_atom=energy,
            source="test",
        )
        for number, (content, energy) in enumerate(contents)
    ]
    # pymatgen cannot draw a binary without a compound
    assume(n > 2 or any(e < -1e-11 * sum(a) for a, e in rows))
    asked = [(p.composition, p.energy_ev_per_atom) for p in phases]
    asked += [({el: float(a) for el, a in zip(elements, x, strict=True) if a}, -2.0) for x in extra]
    assert_same(phases, asked)
    hull = Hull(phases)
    together = hull.distances(
        hull.fractions([c for c, _ in asked]), np.array([e for _, e in asked])
    )
    alone = [hull.distance(c, e) for c, e in asked]
    assert [d.e_above_hull_ev_per_atom for d in together] == pytest.approx(
        [d.e_above_hull_ev_per_atom for d in alone], abs=1e-12
    )
    for (content, _), distance in zip(asked, together, strict=True):
        assert_composition(content, distance, {p.phase_id: p.composition for p in phases})


def assert_composition(content, distance, contents):
    """The products together are the composition asked about."""
    total = Composition({})
    for product in distance.decomposition:
        one = Composition(contents[product.phase_id]).fractional_composition
        total += product.fraction * one
    wanted = Composition(content).fractional_composition
    for el in set(total) | set(wanted):
        assert total[el] == pytest.approx(wanted[el], abs=1e-7)


def test_more_candidates_than_fit_one_product_are_asked_in_parts(monkeypatch):
    phases = [phase("Li", 0.0), phase("O", 0.0), phase("Li2O", -2.0), phase("Li2O2", -1.8)]
    hull = Hull(phases)
    grid = np.array([[x, 1 - x] for x in np.linspace(0, 1, 101)])
    whole = hull.distances(grid, np.zeros(101))
    monkeypatch.setattr("hullward.tools.hull.convex_hull.TABLE_SIZE", 10)
    assert hull.distances(grid, np.zeros(101)) == whole
    assert Hull(phases).distances(grid, np.zeros(101)) == whole
    heights, parts = hull.heights(grid, np.zeros(101))
    assert heights.tolist() == [d.e_above_hull_ev_per_atom for d in whole]
    assert [[(n, f) for (n, _), f in row] for row in parts] == [
        [(p.phase_id, p.fraction) for p in d.decomposition] for d in whole
    ]


def test_one_refused_composition_among_many_is_named():
    hull = Hull([phase("Li", 0.0), phase("O", 0.0)])
    with pytest.raises(InputError, match=r"'Na': 1.0.*not in the system Li-O"):
        hull.fractions([{"Li": 1.0}, {"Na": 1.0}])
    with pytest.raises(InputError, match="not in the system"):
        hull.fractions([{"Li": 0.0}])
    assert hull.fractions([{"Li": 1.0, "Na": 0.0}]).tolist() == [[1.0, 0.0]]


def test_a_real_phase_hidden_by_a_tie_line_point_is_still_found():
    phases = [
        phase("Li", 0.0),
        phase("O", 0.0),
        phase("Li2O", -2.0, "real"),
        phase("Li2O", -2.001, "point", is_phase=False),
    ]
    (product,) = Hull(phases).decompose({"Li": 2, "O": 1})
    assert product.phase_id == "real"


def test_traces_of_another_element_are_none():
    hull = Hull([phase("Li", 0.0), phase("O", 0.0), phase("Li2O", -2.0)])
    distance = hull.distance({"Li": 2.0, "O": 1.0, "H": 0.0}, -2.0)
    assert distance.e_above_hull_ev_per_atom == 0.0
    nearly = Hull([phase("Li", 0.0), phase("O", 0.0), phase("Li2O", -2.0)]).fractions(
        [{"Li": 1.0, "O": 1e-10}]
    )
    assert nearly.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("system", ["Al-Mg-O", "Li-Mn-O", "Ca-Cu-O", "Ba-Cu-O-Y"])
def test_whole_database_systems_give_phase_diagrams_heights(shared_data, system):
    path = shared_data / "hull" / "mp2020_whole_database_hull.parquet"
    given = load_reference(f"file:{path}").phases(system)
    phases = [p.model_copy(update={"is_phase": True}) for p in given]
    assert_same(phases, [(p.composition, p.energy_ev_per_atom - 0.02) for p in phases])
