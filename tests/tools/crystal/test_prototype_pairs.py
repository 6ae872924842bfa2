"""Pairs of crystals with the answer a textbook gives, ours, and StructureMatcher's beside it.

known: the same compound.  substitution: the same prototype, elements exchanged.  other: another
prototype.  Structures are written from the literature's descriptions of their types.
"""

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal import LANTHANIDES, PrototypeLibrary
from hullward.tools.screening.explain import Explainer


def build(group, cell, *sites):
    """A crystal from its space group: lengths and angles, then (symbol, x, y, z)."""
    from ase.spacegroup import crystal

    cell = (*cell, 90, 90, 90)[:6] if len(cell) == 3 else cell
    atoms = crystal([s[0] for s in sites], [s[1:] for s in sites], spacegroup=group, cellpar=cell)
    return Crystal.from_arrays(
        atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions()
    )


def cubic(a):
    return (a, a, a)


def hexagonal(a, c):
    return (a, a, c, 90, 90, 120)


def halite(a, c, edge):
    return build(225, cubic(edge), (a, 0, 0, 0), (c, 0.5, 0.5, 0.5))


def sphalerite(a, c, edge):
    return build(216, cubic(edge), (a, 0, 0, 0), (c, 0.25, 0.25, 0.25))


def wurtzite(a, c, edge, height, u=0.375):
    cell = hexagonal(edge, height)
    return build(186, cell, (a, 1 / 3, 2 / 3, 0), (c, 1 / 3, 2 / 3, u))


def cscl(a, c, edge):
    return build(221, cubic(edge), (a, 0, 0, 0), (c, 0.5, 0.5, 0.5))


def fluorite(a, c, edge):
    return build(225, cubic(edge), (a, 0, 0, 0), (c, 0.25, 0.25, 0.25))


def rutile(a, edge, height, x=0.305):
    return build(136, (edge, edge, height), (a, 0, 0, 0), ("O", x, x, 0))


def perovskite(a, b, x, edge):
    return build(221, cubic(edge), (a, 0.5, 0.5, 0.5), (b, 0, 0, 0), (x, 0.5, 0, 0))


def orthoferrite(a, b):
    sites = (a, 0.05, 0.25, 0.99), (b, 0, 0, 0.5), ("O", 0.48, 0.25, 0.08), ("O", 0.29, 0.04, 0.71)
    return build(62, (5.6, 7.8, 5.4), *sites)


def heusler(x, y, z, edge):
    return build(225, cubic(edge), (x, 0.25, 0.25, 0.25), (y, 0, 0, 0), (z, 0.5, 0.5, 0.5))


def half_heusler(four_c, y, z, edge):
    return build(216, cubic(edge), (four_c, 0.25, 0.25, 0.25), (y, 0, 0, 0), (z, 0.5, 0.5, 0.5))


def inverse_heusler(x, y, z, edge):
    sites = (x, 0, 0, 0), (x, 0.25, 0.25, 0.25), (y, 0.5, 0.5, 0.5), (z, 0.75, 0.75, 0.75)
    return build(216, cubic(edge), *sites)


def layered(a, b, edge, height, z):
    return build(166, hexagonal(edge, height), (a, 0, 0, 0), (b, 0, 0, 0.5), ("O", 0, 0, z))


def nickeline(a, c, edge, height):
    return build(194, hexagonal(edge, height), (a, 0, 0, 0), (c, 1 / 3, 2 / 3, 0.25))


def quartz(group, z):
    return build(
        group,
        hexagonal(4.913, 5.405),
        ("Si", 0.4697, 0, 1 / 3 if z > 0 else 2 / 3),
        ("O", 0.4135, 0.2669, z % 1),
    )


def bcc(a, edge):
    return build(229, cubic(edge), (a, 0, 0, 0))


def fcc(a, edge):
    return build(225, cubic(edge), (a, 0, 0, 0))


def silicon_carbide(stacking):
    """A polytype from the letters of its layers."""
    at = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    n = len(stacking)
    layers = [(*at[letter], k / n) for k, letter in enumerate(stacking)]
    carbon = [(x, y, z + 0.75 / n) for x, y, z in layers]
    lattice = [[3.08, 0, 0], [-1.54, 3.08 * np.sqrt(3) / 2, 0], [0, 0, 2.52 * n]]
    return Crystal.from_arrays(lattice, ["Si"] * n + ["C"] * n, layers + carbon)


def double_perovskite(order):
    """Sr2FeMoO6 on undistorted sites; order: which of eight octahedra are Fe."""
    small = perovskite("Sr", "Ti", "O", 3.95)
    large = repeated(small, np.diag([2, 2, 2]))
    species = list(large.species)
    for site, xyz in enumerate(large.frac_coords):
        if species[site] == "Ti":
            parity = np.rint(2 * np.array(xyz)).astype(int)
            species[site] = "Fe" if order(parity) % 2 else "Mo"
    return Crystal.from_arrays(large.lattice, species, large.frac_coords)


def repeated(crystal, matrix):
    return Crystal.from_structure(crystal.to_structure().make_supercell(matrix, in_place=False))


def stretched(crystal, factor):
    lattice = np.array(crystal.lattice) * factor
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


def shifted(crystal, by):
    coords = np.array(crystal.frac_coords) + by
    return Crystal.from_arrays(crystal.lattice, crystal.species, coords)


def mirrored(crystal):
    lattice = np.array(crystal.lattice) * [-1, 1, 1]
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


def renamed(crystal, **names):
    species = [names.get(s, s) for s in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def rattled(crystal, size_a):
    steps = np.random.default_rng(0).normal(size=(crystal.n_atoms, 3))
    steps *= size_a / np.linalg.norm(steps, axis=1, keepdims=True)
    return shifted(crystal, steps @ np.linalg.inv(np.array(crystal.lattice)))


NACL, SRTIO3 = halite("Na", "Cl", 5.64), perovskite("Sr", "Ti", "O", 3.905)
ZNS = sphalerite("Zn", "S", 5.41)
FEMO = double_perovskite(sum)
LACOO = layered("Li", "Co", 2.816, 14.05, 0.2606)
BAFE2AS2 = build(
    139, (3.96, 3.96, 13.02), ("Ba", 0, 0, 0), ("Fe", 0.5, 0, 0.25), ("As", 0, 0, 0.3545)
)
LA2O3 = build(
    164,
    hexagonal(3.94, 6.13),
    ("La", 1 / 3, 2 / 3, 0.245),
    ("O", 1 / 3, 2 / 3, 0.647),
    ("O", 0, 0, 0),
)
CUAU_LIKE = [  # an ordering of Cu and Fe on the sites of sphalerite, layer by layer along c
    ("Cu", (0, 0, 0)), ("Cu", (0.5, 0.5, 0)), ("Fe", (0.5, 0, 0.5)), ("Fe", (0, 0.5, 0.5)),
]  # fmt: skip
LAYER_ORDERED = Crystal.from_arrays(
    np.eye(3) * 5.3,
    [s for s, _ in CUAU_LIKE] + ["S"] * 4,
    [x for _, x in CUAU_LIKE] + [tuple(np.array(x) + 0.25) for _, x in CUAU_LIKE],
)
CHALCOPYRITE = build(
    122, (5.289, 5.289, 10.423), ("Cu", 0, 0, 0), ("Fe", 0, 0, 0.5), ("S", 0.257, 0.25, 0.125)
)

# name: known, candidate, answer, exchanged (of the first for the second)
PAIRS = {
    # the same compound
    "itself": (NACL, NACL, "known", ()),
    "supercell": (NACL, repeated(NACL, np.diag([2, 1, 3])), "known", ()),
    "sheared cell": (SRTIO3, repeated(SRTIO3, [[1, 1, 0], [0, 1, 0], [0, 2, 1]]), "known", ()),
    "hexagonal and rhombohedral cell": (
        LACOO,
        Crystal.from_structure(LACOO.to_structure().get_primitive_structure()),
        "known",
        (),
    ),
    "another origin": (LA2O3, shifted(LA2O3, [0.1, 0.27, 0.4]), "known", ()),
    "enantiomorphic space groups": (
        quartz(152, 0.1191 + 1 / 3),
        mirrored(quartz(152, 0.1191 + 1 / 3)),
        "known",
        (),
    ),
    "P3_121 and P3_221": (quartz(152, 0.1191 + 1 / 3), quartz(154, -0.1191 - 1 / 3), "known", ()),
    "mirror image of a polar crystal": (
        wurtzite("Zn", "O", 3.25, 5.21),
        mirrored(wurtzite("Zn", "O", 3.25, 5.21)),
        "known",
        (),
    ),
    "swollen by a third": (SRTIO3, stretched(SRTIO3, 1.1), "known", ()),
    "rattled a little": (
        orthoferrite("Ca", "Ti"),
        rattled(orthoferrite("Ca", "Ti"), 0.1),
        "known",
        (),
    ),
    "ferroelectric displacement": (
        perovskite("Ba", "Ti", "O", 4.0),
        build(
            99,
            (3.99, 3.99, 4.04),
            ("Ba", 0.5, 0.5, 0.51),
            ("Ti", 0, 0, 0.02),
            ("O", 0, 0, 0.49),
            ("O", 0.5, 0, -0.01),
        ),
        "known",
        (),
    ),
    "CsCl with its ions exchanged": (cscl("Cs", "Cl", 4.12), cscl("Cl", "Cs", 4.12), "known", ()),
    "NaCl with its ions exchanged": (NACL, halite("Cl", "Na", 5.64), "known", ()),
    "sphalerite with its ions exchanged": (ZNS, sphalerite("S", "Zn", 5.41), "known", ()),
    "Heusler with Y and Z exchanged": (
        heusler("Ni", "Mn", "Ga", 5.8),
        heusler("Ni", "Ga", "Mn", 5.8),
        "known",
        (),
    ),
    # the same prototype
    "one ion": (NACL, halite("K", "Cl", 6.29), "substitution", ("Na→K",)),
    "both ions": (NACL, halite("Mg", "O", 4.21), "substitution", ("Cl→O", "Na→Mg")),
    "in a supercell": (
        NACL,
        repeated(halite("K", "Cl", 6.29), np.diag([1, 2, 1])),
        "substitution",
        ("Na→K",),
    ),
    "sphalerite": (ZNS, sphalerite("Ga", "As", 5.65), "substitution", ("S→As", "Zn→Ga")),
    "wurtzite": (
        wurtzite("Zn", "O", 3.25, 5.21),
        wurtzite("Ga", "N", 3.19, 5.19),
        "substitution",
        ("O→N", "Zn→Ga"),
    ),
    "rutile": (rutile("Ti", 4.59, 2.96), rutile("Sn", 4.74, 3.19), "substitution", ("Ti→Sn",)),
    "fluorite": (
        fluorite("Ca", "F", 5.46),
        fluorite("Ce", "O", 5.41),
        "substitution",
        ("Ca→Ce", "F→O"),
    ),
    "antifluorite": (
        fluorite("Ca", "F", 5.46),
        fluorite("O", "Li", 4.62),
        "substitution",
        ("Ca→O", "F→Li"),
    ),
    "perovskite": (SRTIO3, perovskite("Ba", "Ti", "O", 4.0), "substitution", ("Sr→Ba",)),
    "antiperovskite": (
        SRTIO3,
        perovskite("Cl", "O", "Li", 3.91),
        "substitution",
        ("O→Li", "Sr→Cl", "Ti→O"),
    ),
    "tilted perovskite": (
        orthoferrite("Ca", "Ti"),
        orthoferrite("Sr", "Ru"),
        "substitution",
        ("Ca→Sr", "Ti→Ru"),
    ),
    "caesium chloride": (
        cscl("Cs", "Cl", 4.12),
        cscl("Ni", "Al", 2.89),
        "substitution",
        ("Cl→Al", "Cs→Ni"),
    ),
    "metals": (bcc("Na", 4.29), bcc("W", 3.16), "substitution", ("Na→W",)),
    "Heusler": (
        heusler("Cu", "Mn", "Al", 5.95),
        heusler("Ni", "Mn", "Ga", 5.8),
        "substitution",
        ("Al→Ga", "Cu→Ni"),
    ),
    "half-Heusler": (
        half_heusler("Ni", "Ti", "Sn", 5.92),
        half_heusler("Ni", "Zr", "Sn", 6.1),
        "substitution",
        ("Ti→Zr",),
    ),
    "half-Heusler, another element on 4c": (
        half_heusler("Ni", "Ti", "Sn", 5.92),
        half_heusler("Sn", "Ti", "Ni", 5.92),
        "substitution",
        ("Ni→Sn", "Sn→Ni"),
    ),
    "nickeline and its inverse": (
        nickeline("Fe", "S", 3.45, 5.76),
        nickeline("S", "Fe", 3.45, 5.76),
        "substitution",
        ("Fe→S", "S→Fe"),
    ),
    "ThCr2Si2": (
        BAFE2AS2,
        renamed(BAFE2AS2, Ba="Sr", Fe="Ni", As="P"),
        "substitution",
        ("As→P", "Ba→Sr", "Fe→Ni"),
    ),
    "diboride": (
        build(191, hexagonal(3.0, 3.25), ("Al", 0, 0, 0), ("B", 1 / 3, 2 / 3, 0.5)),
        build(191, hexagonal(3.09, 3.52), ("Mg", 0, 0, 0), ("B", 1 / 3, 2 / 3, 0.5)),
        "substitution",
        ("Al→Mg",),
    ),
    "A15": (
        build(223, cubic(5.29), ("Sn", 0, 0, 0), ("Nb", 0.25, 0, 0.5)),
        build(223, cubic(4.72), ("Si", 0, 0, 0), ("V", 0.25, 0, 0.5)),
        "substitution",
        ("Nb→V", "Sn→Si"),
    ),
    "layered oxide": (
        LACOO,
        layered("Na", "Cr", 2.97, 15.95, 0.265),
        "substitution",
        ("Co→Cr", "Li→Na"),
    ),
    "double perovskite": (FEMO, renamed(FEMO, Sr="Ba", Mo="W"), "substitution", ("Mo→W", "Sr→Ba")),
    # lanthanides
    "another lanthanide": (
        orthoferrite("La", "Fe"),
        orthoferrite("Nd", "Fe"),
        "lanthanide_swap",
        ("La→Nd",),
    ),
    "the last lanthanide for the first": (
        perovskite("La", "Al", "O", 3.79),
        perovskite("Lu", "Al", "O", 3.6),
        "lanthanide_swap",
        ("La→Lu",),
    ),
    "half the lanthanides": (
        LA2O3,
        Crystal.from_arrays(LA2O3.lattice, ["La", "Nd", "O", "O", "O"], LA2O3.frac_coords),
        "lanthanide_swap",
        ("La→La+Nd",),
    ),
    "yttrium is no lanthanide": (
        orthoferrite("Gd", "Al"),
        orthoferrite("Y", "Al"),
        "substitution",
        ("Gd→Y",),
    ),
    "a lanthanide compound, another metal": (
        orthoferrite("La", "Fe"),
        orthoferrite("La", "Ga"),
        "substitution",
        ("Fe→Ga",),
    ),
    "a lanthanide and a metal": (
        perovskite("La", "Al", "O", 3.79),
        perovskite("Nd", "Ga", "O", 3.85),
        "substitution",
        ("Al→Ga", "La→Nd"),
    ),
    # another prototype
    "rock salt and caesium chloride": (NACL, cscl("Na", "Cl", 3.5), "other", ()),
    "sphalerite and wurtzite": (ZNS, wurtzite("Zn", "S", 3.82, 6.26), "other", ()),
    "rock salt and sphalerite": (NACL, sphalerite("Na", "Cl", 6.2), "other", ()),
    "rock salt and nickeline": (
        halite("Fe", "S", 5.0),
        nickeline("Fe", "S", 3.45, 5.76),
        "other",
        (),
    ),
    "fcc and bcc": (fcc("Fe", 3.6), bcc("Fe", 2.87), "other", ()),
    "fcc and hcp": (
        fcc("Co", 3.54),
        build(194, hexagonal(2.51, 4.07), ("Co", 1 / 3, 2 / 3, 0.25)),
        "other",
        (),
    ),
    "SiC 2H and 4H": (silicon_carbide("AB"), silicon_carbide("ABCB"), "other", ()),
    "SiC 3C and 6H": (silicon_carbide("ABC"), silicon_carbide("ABCACB"), "other", ()),
    "Heusler and inverse Heusler": (
        heusler("Mn", "Co", "Al", 5.8),
        inverse_heusler("Mn", "Co", "Al", 5.8),
        "other",
        (),
    ),
    "tilted and cubic perovskite": (
        perovskite("Ca", "Ti", "O", 3.84),
        orthoferrite("Ca", "Ti"),
        "other",
        (),
    ),
    "perovskite and ilmenite": (
        perovskite("Fe", "Ti", "O", 3.8),
        build(
            148,
            hexagonal(5.09, 14.09),
            ("Fe", 0, 0, 0.355),
            ("Ti", 0, 0, 0.146),
            ("O", 0.317, 0.023, 0.245),
        ),
        "other",
        (),
    ),
    "rock-salt and layered order of a double perovskite": (
        FEMO,
        double_perovskite(lambda parity: parity[2]),
        "other",
        (),
    ),
    "rock-salt and columnar order": (
        FEMO,
        double_perovskite(lambda parity: parity[0] + parity[1]),
        "other",
        (),
    ),
    "two orders on sphalerite": (CHALCOPYRITE, LAYER_ORDERED, "other", ()),
    "L1_0 and L1_1": (
        build(123, (2.8, 2.8, 3.67), ("Cu", 0, 0, 0), ("Pt", 0.5, 0.5, 0.5)),
        build(166, hexagonal(2.7, 13.2), ("Cu", 0, 0, 0), ("Pt", 0, 0, 0.5)),
        "other",
        (),
    ),
    "L1_2 and D0_22": (
        build(221, cubic(3.97), ("Ti", 0, 0, 0), ("Al", 0.5, 0.5, 0)),
        build(139, (3.85, 3.85, 8.58), ("Ti", 0, 0, 0), ("Al", 0, 0, 0.5), ("Al", 0, 0.5, 0.25)),
        "other",
        (),
    ),
    "layered oxide and delafossite": (
        LACOO,
        layered("Li", "Co", 2.86, 16.9, 0.11),
        "other",
        (),
    ),
    "diamond and graphite": (
        build(227, cubic(3.57), ("C", 0, 0, 0)),
        build(194, hexagonal(2.46, 6.7), ("C", 0, 0, 0.25), ("C", 1 / 3, 2 / 3, 0.25)),
        "other",
        (),
    ),
}


def test_there_are_pairs_enough():
    assert len(PAIRS) >= 40


@pytest.mark.parametrize("name", PAIRS)
def test_the_label_is_the_textbooks(name):
    known, candidate, answer, exchanged = PAIRS[name]
    said = Explainer([("k", known)]).explain("c", candidate, "after", PrototypeLibrary())
    if answer == "other":
        assert said.kind in ("structure_type", "new_prototype")
        assert said.match_id != "k"
        return
    assert (said.kind, said.match_id, said.exchanged) == (answer, "k", exchanged)
    assert said.match_formula == known.formula


@pytest.mark.parametrize("name", PAIRS)
def test_the_structure_matcher_agrees(name):
    from pymatgen.core.structure_matcher import StructureMatcher

    known, candidate, answer, _ = PAIRS[name]
    one, two = known.to_structure(), candidate.to_structure()
    matcher = StructureMatcher()
    assert bool(matcher.fit(one, two)) is (answer == "known")
    if answer != "lanthanide_swap":
        assert bool(matcher.fit_anonymous(one, two)) is (answer != "other")
        return
    for structure in (one, two):
        present = {s.symbol for s in structure.elements} & LANTHANIDES
        structure.replace_species(dict.fromkeys(present, "La"), in_place=True)
    assert matcher.fit(one, two)


def test_inverse_structures_are_called_so():
    for name in ("antifluorite", "antiperovskite", "nickeline and its inverse"):
        known, candidate, *_ = PAIRS[name]
        said = Explainer([("k", known)]).explain("c", candidate, "after", PrototypeLibrary())
        assert said.inverse
        assert said.words.startswith("inverse of ")
    known, candidate, *_ = PAIRS["fluorite"]
    said = Explainer([("k", known)]).explain("c", candidate, "after", PrototypeLibrary())
    assert not said.inverse
    assert said.words == "same prototype as CaF2 (k) with Ca→Ce, F→O"
