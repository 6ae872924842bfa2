"""Orderings of one lattice are found, polymorphs are kept apart: twenty sets made by hand."""

from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.tools.crystal import OrderedLattice, may_share, shared_by
from hullward.tools.prototypes import prototype_library


@cache
def types():
    return {p.prototype_id: p.crystal for p in prototype_library()}


def named(name, **exchange):
    """The first compound of a structure type with other elements on its sites."""
    crystal = types()[name]
    species = [exchange.get(s, s) for s in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def supercell(crystal, matrix):
    """The crystal in a cell of matrix @ lattice."""
    structure = crystal.to_structure()
    structure.make_supercell(matrix)
    return Crystal.from_structure(structure)


def ordered(parent, matrix, place, seed=0, **elements):
    """A random ordering: the sites of `place` in a supercell filled with elements in numbers."""
    cell = supercell(parent, matrix)
    species = np.array(cell.species, dtype=object)
    sites = np.flatnonzero(species == place)
    total = sum(elements.values())
    filling = [e for e, n in elements.items() for _ in range(n * len(sites) // total)]
    assert len(filling) == len(sites)
    species[sites] = np.random.default_rng(seed).permutation(filling)
    return Crystal.from_arrays(cell.lattice, species.tolist(), cell.frac_coords)


def shaken(crystal, seed, strain=0.02, rattle_a=0.08):
    """The crystal as a relaxation of another ordering might distort it."""
    rng = np.random.default_rng(seed)
    draw = rng.normal(scale=strain, size=(3, 3))
    lattice = np.array(crystal.lattice) @ (np.eye(3) + (draw + draw.T) / 2)
    away = rng.normal(scale=rattle_a, size=(crystal.n_atoms, 3)) @ np.linalg.inv(lattice)
    return Crystal.from_arrays(lattice, crystal.species, np.array(crystal.frac_coords) + away)


def orderings(parent, shapes, place, **elements):
    """Shaken random orderings in several supercells."""
    return [
        shaken(ordered(parent, shape, place, seed, **elements), seed)
        for seed, shape in enumerate(shapes)
    ]


# of a primitive cell of a cubic F lattice
CUBE = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]  # 4 cells
TRIPLE = [[1, 0, 0], [0, 1, 0], [0, 0, 3]]
LAYERS = [[1, -1, 0], [0, 1, -1], [1, 1, 1]]  # 3 cells
SIX = [[1, 1, 0], [-1, 2, 0], [0, 0, 2]]
TWO = [[1, 1, 0], [1, -1, 0], [0, 0, 1]]
FOUR = [[1, 1, 0], [1, -1, 0], [0, 0, 2]]
EIGHT = [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
ROCK_SALT, CAESIUM_CHLORIDE = "AB_cF8_225_a_b", "AB_cP2_221_b_a"


# each: crystals by family; the first argument of a set is its name
def hand_made():
    cubic = named("AB3C_cP5_221_a_c_b", Ca="Sr")
    salt = named(ROCK_SALT, Na="Mn", Cl="O")
    hcp, fcc, bcc = named("A_hP2_194_c"), named("A_cF4_225_a"), named("A_cI2_229_a")
    zinc_blende = named("AB_cF8_216_c_a")
    wurtzite = named("AB_hP4_186_b_b")
    return {
        "rock salt LiMn2O3": [orderings(salt, [TRIPLE, LAYERS, SIX, SIX, SIX], "Mn", Li=1, Mn=2)],
        "rock salt LiFeO2, random, gamma and layered": [
            [
                *orderings(salt, [CUBE, EIGHT, FOUR], "Mn", Li=1, Fe=1),
                named("own:LiFeO2-gamma"),
                named("own:LiCoO2-layered", Co="Fe"),
            ]
        ],
        "LiMnO2: Pmmn, C2/m and layered are orderings of rock salt": [
            [
                named("own:LiMnO2-orthorhombic"),
                named("own:LiMnO2-monoclinic"),
                named("own:LiCoO2-layered", Co="Mn"),
                *orderings(salt, [EIGHT], "Mn", Li=1, Mn=1),
            ]
        ],
        "stacking of NaCoO2: O3, P2, P3": [
            [named("own:LiCoO2-layered", Li="Na")],
            [named("own:NaCoO2-P2")],
            [named("own:NaCoO2-P3")],
        ],
        "spinel MgAl2O4, normal and inverse": [
            [
                named("own:MgAl2O4-spinel"),
                named("own:MgAl2O4-inverse"),
                *(
                    shaken(
                        ordered(
                            named("own:MgAl2O4-spinel", Mg="Al"), np.eye(3), "Al", s, Mg=1, Al=2
                        ),
                        s,
                    )
                    for s in (1, 2)
                ),
            ]
        ],
        "MgAl2O4: spinel and thiogallate type": [
            [named("own:MgAl2O4-spinel"), named("own:MgAl2O4-inverse")],
            [named("A2BC4_tI14_82_bc_a_g", Cd="Mg", S="O")],
        ],
        "perovskite Sr2FeMoO6": [
            orderings(cubic, [TWO, FOUR, EIGHT, CUBE], "Ti", Fe=1, Mo=1),
        ],
        "LaSrMnFeO6, both cation sites ordered": [
            [
                shaken(ordered(one, np.eye(3), "Sr", seed, La=1, Sr=1), seed)
                for seed, one in enumerate(
                    ordered(cubic, shape, "Ti", 3, Mn=1, Fe=1) for shape in (TWO, FOUR, EIGHT)
                )
            ],
        ],
        "CaTiO3: perovskite and ilmenite": [
            [named("AB3C_cP5_221_a_c_b")],
            [named("AB3C_hR10_148_c_f_c", Ti="Ca", Fe="Ti")],
        ],
        "FeTiO3: ilmenite and LiNbO3 type are orderings of corundum": [
            [
                named("AB3C_hR10_148_c_f_c"),
                named("ABC3_hR10_161_a_a_b", Li="Fe", Nb="Ti"),
                *orderings(named("A2B3_hR10_167_c_e", Al="Fe"), [np.eye(3)], "Fe", Fe=1, Ti=1),
            ],
        ],
        "hcp MgCd": [
            orderings(hcp, [TWO, FOUR, EIGHT, [[1, 0, 0], [0, 1, 0], [0, 0, 2]]], "Mg", Mg=1, Cd=1)
        ],
        "hcp and fcc Ti3Sn": [
            [named("A3B_hP8_194_h_c", Ni="Ti"), named("A3B_oP8_59_bf_a", Cu="Ti", Ti="Sn")],
            [named("AB3_cP4_221_a_c", Au="Ti", Cu="Sn")],
        ],
        "fcc CuAu": [
            [
                named("AB_tP2_123_a_d"),
                named("AB_hR2_166_a_b", Pt="Au"),
                *orderings(fcc, [FOUR, EIGHT], "Cu", Cu=1, Au=1),
            ]
        ],
        "fcc TiAl3 types": [
            [
                named("A3B_tI8_139_bd_a"),
                named("A3B_tI16_139_cde_e", Zr="Ti"),
                named("AB3_cP4_221_a_c", Au="Ti", Cu="Al"),
            ]
        ],
        "TiAl: bcc and fcc": [
            [named(CAESIUM_CHLORIDE, Cs="Ti", Cl="Al"), *orderings(bcc, [EIGHT], "W", Ti=1, Al=1)],
            [named("AB_tP2_123_a_d", Cu="Ti", Au="Al")],
        ],
        "bcc NaTl: B2 and B32": [
            [named("AB_cF16_227_a_b"), named(CAESIUM_CHLORIDE, Cs="Na", Cl="Tl")],
        ],
        "TiO2: rutile, anatase, brookite, bronze": [
            [named("A2B_tP6_136_f_a")],
            [named("A2B_tI12_141_e_a")],
            [named("A2B_oP24_61_2c_c")],
            [named("own:TiO2-B")],
        ],
        "ZnS: zinc blende and wurtzite": [[zinc_blende], [wurtzite]],
        "CuInS2: zinc blende and wurtzite": [
            [
                named("ABC2_tI16_122_a_b_d", Fe="In"),
                *orderings(zinc_blende, [CUBE, EIGHT, TWO], "Zn", Cu=1, In=1),
            ],
            orderings(wurtzite, [np.eye(3), TWO], "Zn", Cu=1, In=1),
        ],
        "MnO: rock salt, CsCl, NiAs, zinc blende": [
            [salt],
            [named(CAESIUM_CHLORIDE, Cs="Mn", Cl="O")],
            [named("AB_hP4_194_c_a", Ni="Mn", As="O")],
            [named("AB_cF8_216_c_a", Zn="Mn", S="O")],
        ],
    }


def families(crystals):
    """Groups of indices that a chain of shared lattices connects."""
    lattices = [OrderedLattice(crystal) for crystal in crystals]
    group = list(range(len(crystals)))
    for i, j in combinations(group, 2):
        if group[i] != group[j] and shared_by(lattices[i], lattices[j]) is not None:
            assert may_share([lattices[i]], lattices[j]) == [True]
            old, new = max(group[i], group[j]), min(group[i], group[j])
            group = [new if g == old else g for g in group]
    return {frozenset(i for i, g in enumerate(group) if g == k) for k in set(group)}


SETS = hand_made()


@pytest.mark.parametrize("name", SETS)
def test_sets_made_by_hand(name):
    crystals = [crystal for family in SETS[name] for crystal in family]
    starts = np.cumsum([0, *map(len, SETS[name])])
    expected = {frozenset(range(a, b)) for a, b in pairwise(starts)}
    assert families(crystals) == expected


def test_only_elements_that_are_exchanged_share_sites():
    cubic = named("AB3C_cP5_221_a_c_b", Ca="Sr")
    one, other = (ordered(cubic, FOUR, "Ti", seed, Fe=1, Mo=1) for seed in (0, 2))
    assert shared_by(OrderedLattice(one), OrderedLattice(other)) == ("Fe Mo",)
    assert shared_by(OrderedLattice(one), OrderedLattice(shaken(one, 1))) == ()
    spinels = (OrderedLattice(named(f"own:MgAl2O4-{name}")) for name in ("spinel", "inverse"))
    assert shared_by(*spinels) == ("Al Mg",)


def test_cations_do_not_stand_for_anions():
    crystal = named("AB_hP4_194_c_a", Ni="Mn", As="O")
    upside_down = named("AB_hP4_194_c_a", Ni="O", As="Mn")
    assert shared_by(OrderedLattice(crystal), OrderedLattice(upside_down)) is None


def test_bcc_and_hcp_are_two_lattices_though_one_shear_lies_between_them():
    hcp, bcc = named("A_hP2_194_c", Mg="Sr"), named("A_cI2_229_a", W="Sr")
    ordered_hcp = orderings(hcp, [np.eye(3), TWO], "Sr", Sr=1, Ca=1)
    ordered_bcc = orderings(bcc, [TWO, FOUR], "Sr", Sr=1, Ca=1)
    assert families([*ordered_hcp, *ordered_bcc]) == {frozenset({0, 1}), frozenset({2, 3})}
