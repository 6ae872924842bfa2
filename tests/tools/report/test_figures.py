"""Figures are well-formed, self-contained and safe to put into a page."""

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.tools.report.figures import (
    Bar,
    HullPoint,
    comparison_figure,
    funnel_figure,
    heights_figure,
    phase_diagram_figure,
    progress_figure,
    structure_figure,
)
from hullward.tools.report.figures.structure import distinct_colours

SVG = "{http://www.w3.org/2000/svg}"
ROCKSALT = Crystal.from_parameters(
    (4.1, 4.1, 4.1),
    (90, 90, 90),
    ["Li"] * 4 + ["O"] * 4,
    [
        (0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0),
        (0.5, 0.5, 0.5), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5),
    ],
)  # fmt: skip


def circles(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(SVG + "circle"))


def test_a_cell_is_drawn_with_the_atoms_on_all_its_faces() -> None:
    grid, beyond, legend = 27, 30, 2  # beyond the faces: oxygen that lithium on them binds
    assert len(circles(structure_figure(ROCKSALT))) == grid + beyond + legend


def test_atoms_just_below_one_are_drawn_like_atoms_at_zero() -> None:
    moved = [(x - 1e-4, y, z) for x, y, z in ROCKSALT.frac_coords]
    shifted = Crystal.from_arrays(ROCKSALT.lattice, ROCKSALT.species, moved)
    assert len(circles(structure_figure(shifted))) == len(circles(structure_figure(ROCKSALT)))


def test_a_compound_has_no_bonds_between_metals() -> None:
    lines = ET.fromstring(structure_figure(ROCKSALT)).iter(SVG + "line")
    bonds = [line for line in lines if "style" in line.attrib]
    assert len(bonds) == 2 * (54 + 30)  # Li-O contacts of the grid and beyond, two colours each


def test_elements_of_like_colours_are_told_apart() -> None:
    for species in (["Li", "Mn", "O"], ["Cs", "I", "Sn"], ["Al", "Ga", "In", "Ni", "Tl"]):
        colours = distinct_colours(species)
        for one, two in itertools.combinations(species, 2):
            assert math.dist(colours[one], colours[two]) > 0.3, (one, two)


def test_gradients_of_two_structures_in_one_page_do_not_collide() -> None:
    other = Crystal.from_arrays(ROCKSALT.lattice, ["Na"] * 4 + ["O"] * 4, ROCKSALT.frac_coords)
    ids = [
        {g.attrib["id"] for g in ET.fromstring(structure_figure(c)).iter(SVG + "radialGradient")}
        for c in (ROCKSALT, other)
    ]
    assert ids[0].isdisjoint(ids[1])


def corner(name: str, formation: float = 0.0, **shares: float) -> HullPoint:
    return HullPoint(name, name, shares, 0.0, "phase", formation, on_hull=True)


def test_every_mark_of_a_hull_tells_its_name_and_signed_height() -> None:
    points = [
        corner("Li", Li=1.0),
        corner("O", O=1.0),
        corner("Li2O", -2.0, Li=2 / 3, O=1 / 3),
        HullPoint("c-1", "LiO", {"Li": 0.5, "O": 0.5}, -0.012, "short_list", -1.5),
        HullPoint("c-2", "LiO2", {"Li": 1 / 3, "O": 2 / 3}, 9.0, "suspect", 8.0),
    ]
    svg = phase_diagram_figure(points, ["Li", "O"], [("Li", "Li2O"), ("Li2O", "O")])
    assert svg is not None
    assert "LiO c-1: -12 meV/atom, formation energy -1.500 eV/atom (short list)" in svg
    assert "1 above the axis" in svg
    assert ">Li2O</text>" in svg


def test_a_triangle_has_every_tie_line_and_names_every_stable_phase() -> None:
    points = [
        *(corner(element, **{element: 1.0}) for element in ("Li", "Mn", "O")),
        corner("Li2O", -2.0, Li=2 / 3, O=1 / 3),
        corner("MnO", -1.9, Mn=0.5, O=0.5),
    ]
    facets = [("Li", "Li2O", "Mn"), ("Li2O", "Mn", "MnO"), ("Li2O", "MnO", "O")]
    svg = phase_diagram_figure(points, ["Li", "Mn", "O"], facets)
    assert svg is not None
    ties = [e for e in ET.fromstring(svg).iter(SVG + "line") if e.get("opacity") == ".6"]
    assert len(ties) == 7
    assert all(f">{name}</text>" in svg for name in ("Li2O", "MnO", "Li", "Mn", "O"))


def test_four_elements_are_seen_from_one_of_them() -> None:
    points = [corner(e, **{e: 1.0}) for e in ("Na", "Fe", "P", "O")]
    points.append(corner("Na2O", -1.4, Na=2 / 3, O=1 / 3))
    facets = [("Na2O", "Fe", "P", "O"), ("Na", "Na2O", "Fe", "P")]
    svg = phase_diagram_figure(points, ["Na", "Fe", "P", "O"], facets, apex="O")
    assert svg is not None
    assert "Na-Fe-P-O seen from O" in svg
    ties = [e.get("opacity") for e in ET.fromstring(svg).iter(SVG + "line")]
    assert ties.count(".6") == 3  # Na2O-Fe-P, the equilibria with oxygen


@pytest.mark.parametrize("count", [1, 5])
def test_one_element_and_five_have_no_plot(count: int) -> None:
    assert phase_diagram_figure([], ["Li", "Mn", "O", "P", "S"][:count], []) is None


def test_bars_carry_counts_and_shares_of_what_was_proposed() -> None:
    svg = funnel_figure({"proposed": 200, "parsed": 150, "stable": 0})
    assert "150 (75.0 %)" in svg
    assert "0 (0.0 %)" in svg


def test_nothing_proposed_has_no_share() -> None:
    assert "0 (—)" in funnel_figure({"proposed": 0})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))),
            st.floats(-5, 5),
            st.sampled_from(["phase", "short_list", "judged", "suspect"]),
        ),
        max_size=6,
    ),
    st.sampled_from([("Li", "O"), ("Li", "Mn", "O")]),
)
def test_whatever_the_names_and_heights_the_figure_is_well_formed(rows, elements) -> None:
    composition = dict.fromkeys(elements, 1 / len(elements))
    points = [
        HullPoint(name, name, composition, height, kind, height, on_hull=True)
        for name, height, kind in rows
    ]
    svg = phase_diagram_figure(points, elements, [])
    assert svg is not None
    assert not [e for e in ET.fromstring(svg).iter() if "script" in e.tag]


def bars(counts: dict[int | None, tuple[int, int, int]]) -> list[Bar]:
    """Bins of 25 meV/atom; counts by their lower ends: reference, union, new in the union."""
    ends = [None, *range(-100, 425, 25), None]
    return [(a, b, *counts.get(a, (0, 0, 0))) for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize(
    ("svg", "described"),
    [
        (heights_figure(bars({-25: (3, 0, 0), 0: (1, 4, 2), 300: (5, 5, 5)}), 100),
         "4 of 9 structures lie less than 100 meV/atom above the hull of reference and campaign; "
         "3 lie below the hull of the reference alone."),
        (progress_figure([("0", None, 0), ("1", 40.0, 2), ("2", -12.0, 5)]),
         "5 families after 3 cycles; best height from 40 to −12 meV/atom."),
        (comparison_figure([("a <b>", 0.0, 30.0), ("c", 50.0, 40.0)], "one", "two"),
         "2 entries; they differ by up to 30 meV/atom."),
    ],
    ids=["heights", "progress", "comparison"],
)  # fmt: skip
def test_a_figure_says_what_it_shows(svg: str, described: str) -> None:
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.find(SVG + "title").text
    assert root.find(SVG + "desc").text == described
    box = [float(x) for x in root.get("viewBox").split()]
    for rect in root.iter(SVG + "rect"):
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        assert min(x, y, w, h) >= 0
        assert x + w <= box[2]
        assert y + h <= box[3]


def test_a_histogram_does_not_grow_with_what_it_counts() -> None:
    few = heights_figure(bars({0: (1, 1, 1)}), 100)
    many = heights_figure(bars(dict.fromkeys(range(-100, 425, 25), (9000, 9000, 9000))), 100)
    assert len(many) < 1.2 * len(few)
