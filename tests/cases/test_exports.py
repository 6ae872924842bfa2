"""Exported files hold the stored crystal, whichever program reads them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.potential import load_potential
from hullward.tools.crystal import nearest_pairs
from hullward.tools.crystal.files import (
    CifReader,
    difference,
    parse_raw,
    read_inputs,
    write_cif,
)
from hullward.tools.records import Flaw, Protocol, Reason
from hullward.tools.relax.stream import relax_one
from hullward.tools.report import export
from hullward.tools.report.export import ExportedStructure

FILES = Path(__file__).parent / "files"

# Each crystal of a file: reduced formula, atoms in the cell, shortest distance in Å; or its flaw.
# The CIFs were written with the atoms of one symmetry search and the operators of another.
EXPECTED: dict[str, list[tuple[str, int, float] | Reason]] = {
    "export/fe3o4ish_0.001_0.cif": [("Fe3O4", 56, 1.984)],
    "export/nacl_prim_0.003_2.cif": [Reason.BAD_CIF],
    "export/nacl_prim_0.005_0.cif": [Reason.BAD_CIF],
    "export/rutile_0.003_4.cif": [("TiO2", 12, 1.943)],
    "export/three.jsonl": [("NaCl", 2, 2.809), ("Fe3O4", 14, 1.979), ("TiO2", 6, 1.943)],
}
SOURCES = [
    "si_o2_units", "zircon_o2_sum", "fese_o1_sum", "ag2o_multiplicity", "bi_rhomb_name",
    "laalo3_rhomb", "calcite_hex_name", "zno_3_digits", "mgb2_3_digits", "quartz_3_digits",
    "operators_without_name", "identity_only_perovskite", "gdfeo3_pnma", "cuo_c2c", "bom_crlf",
    "zro2_short_name",
]  # fmt: skip
AMPLITUDES_A = (0.0, 0.0005, 0.001, 0.003, 0.005, 0.02)


@cache
def source(name: str) -> Crystal:
    (found,) = [parse_raw(i.raw, i.format) for i in read_inputs(FILES / f"own/cif/{name}.cif")]
    assert isinstance(found, Crystal)
    return found


def rattled(crystal: Crystal, amplitude_a: float, seed: int) -> Crystal:
    """Atoms and cell vectors moved at random, and the cell turned."""
    rng = np.random.default_rng(seed)
    lattice = np.array(crystal.lattice) + rng.normal(0, amplitude_a, (3, 3))
    moves = rng.normal(0, amplitude_a, (crystal.n_atoms, 3)) @ np.linalg.inv(lattice)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return Crystal.from_arrays(
        lattice @ turn, crystal.species, np.array(crystal.frac_coords) + moves
    )


def candidate(crystal: Crystal) -> ExportedStructure:
    return ExportedStructure("c-1", crystal, {"formula": crystal.formula, "energy": -1.5})


def shortest_a(crystal: Crystal) -> float:
    return float(nearest_pairs(crystal, 4.0)[2].min())


def read_elsewhere(text: str, format: str) -> Crystal:
    """The crystal of a text by pymatgen or ase."""
    from ase.io import read
    from pymatgen.core import Structure

    if format == "extxyz":
        return Crystal.from_ase(read(io.StringIO(text), format="extxyz"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen reports each coordinate that it rounds
        return Crystal.from_structure(Structure.from_str(text, fmt=format))


def texts_of(crystal: Crystal) -> dict[str, str]:
    one = candidate(crystal)
    return {
        "cif": export.cif_text(one),
        "cif in P1": export.cif_text(one, symmetrise=False),
        "poscar": export.poscar_text(one),
        "extxyz": export.extxyz_text(one),
    }


def assert_all_formats_keep(crystal: Crystal) -> None:
    for name, text in texts_of(crystal).items():
        read = read_elsewhere(text, name.split()[0])
        assert difference(crystal, read) is None
        assert read.formula == crystal.formula
        assert shortest_a(read) == pytest.approx(shortest_a(crystal), abs=0.03)
        if name != "cif":
            assert read.n_atoms == crystal.n_atoms


@pytest.mark.parametrize("name", EXPECTED)
def test_an_export_is_read_right_or_refused(name: str) -> None:
    found = [parse_raw(item.raw, item.format) for item in read_inputs(FILES / name)]
    for crystal, wanted in zip(found, EXPECTED[name], strict=True):
        if isinstance(wanted, Reason):
            assert isinstance(crystal, Flaw)
            assert crystal.reason is wanted
        else:
            assert isinstance(crystal, Crystal)
            formula, n_atoms, distance_a = wanted
            assert (crystal.formula, crystal.n_atoms) == (formula, n_atoms)
            assert shortest_a(crystal) == pytest.approx(distance_a, abs=1e-3)


@pytest.mark.parametrize("row", range(3))
def test_the_distorted_cells_leave_as_they_are(row: int) -> None:
    item = list(read_inputs(FILES / "export/three.jsonl"))[row]
    crystal = parse_raw(item.raw, item.format)
    assert isinstance(crystal, Crystal)
    assert_all_formats_keep(crystal)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("amplitude_a", AMPLITUDES_A)
def test_a_rattled_cell_leaves_as_it_is(name: str, amplitude_a: float) -> None:
    for seed in range(2):
        assert_all_formats_keep(rattled(source(name), amplitude_a, seed))


@pytest.mark.parametrize("fmax_ev_per_a", [0.01, 0.05, 0.2])
def test_a_relaxed_cell_leaves_as_it_is(fmax_ev_per_a: float) -> None:
    """Relaxation stops near a symmetry, not on it."""
    toy = load_potential("toy")
    for seed, name in enumerate(SOURCES):
        start = rattled(source(name), 0.05, seed)
        if start.n_atoms > 12:
            continue
        protocol = Protocol(fmax_ev_per_a=fmax_ev_per_a, max_steps=60)
        relaxed = relax_one("c-1", start, toy, protocol).crystal
        if relaxed is not None and shortest_a(relaxed) > 0.5:
            assert_all_formats_keep(relaxed)


def test_atoms_and_operators_are_of_one_search() -> None:
    """Multiplicities, operators and group of the file agree, so our own reader takes it too."""
    with CifReader() as reader:
        for name in SOURCES:
            text, setting = write_cif(rattled(source(name), 0.0005, 1), 0.01)
            assert setting == "symmetry within 0.01 Å"
            found = parse_raw(text, "cif", reader)
            assert isinstance(found, Crystal)
            assert difference(source(name), found) is None


def test_p1_is_written_with_a_note_where_no_symmetry_is_found() -> None:
    text = export.cif_text(candidate(rattled(source("gdfeo3_pnma"), 0.2, 0)))
    assert "# setting: P1, every atom as stored; symmetry within 0.01 Å: no symmetry is" in text
    assert "'P 1'" in text


def test_p1_is_written_where_a_symmetry_search_might_not_end() -> None:
    needle = Crystal.from_arrays(np.diag([2.5, 2.5, 400.0]), ["Cu"], [[0.0, 0.0, 0.0]])
    text, setting = write_cif(needle, 0.01)
    assert setting == "P1, every atom as stored; symmetry within 0.01 Å: no symmetry is found"
    assert "'P 1'" in text


def test_p1_is_written_with_a_note_where_the_symmetrised_form_changes_the_crystal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hullward.tools.crystal.files import cif_text

    crystal, other = source("zno_3_digits"), source("mgb2_3_digits")
    monkeypatch.setattr(cif_text, "_symmetrised", lambda *_: write_cif(other)[0])
    text = export.cif_text(candidate(crystal))
    assert "# setting: P1, every atom as stored; symmetry within 0.01 Å: ZnO reads back as" in text
    read = parse_raw(text, "cif")
    assert isinstance(read, Crystal)
    assert difference(crystal, read) is None


ZNO, PEROVSKITE = "zno_3_digits", "gdfeo3_pnma"


def moved(crystal: Crystal) -> Crystal:
    return Crystal.from_arrays(
        crystal.lattice, crystal.species, np.array(crystal.frac_coords) + np.diag([0.03] * 4)[:, :3]
    )


def with_species(crystal: Crystal, names: dict[str, str]) -> Crystal:
    species = [names.get(symbol, symbol) for symbol in crystal.species]
    return Crystal.from_arrays(crystal.lattice, species, crystal.frac_coords)


def stretched(crystal: Crystal, *factors: float) -> Crystal:
    lattice = np.array(crystal.lattice) @ np.diag(factors)
    return Crystal.from_arrays(lattice, crystal.species, crystal.frac_coords)


CHANGES = [
    (ZNO, lambda c: with_species(c, {"Zn": "Cd"}), "ZnO reads back as CdO"),
    (ZNO, lambda c: stretched(c, 1.01, 1.01, 1.01), "Å3 per atom read back as"),
    (ZNO, moved, "the shortest distance of 1.974 Å reads back as"),
    (ZNO, lambda c: stretched(c, 1.2, 1 / 1.2, 1.0), "the shortest distance of 1.974 Å"),
    (PEROVSKITE, lambda c: with_species(c, {"Gd": "Fe", "Fe": "Gd"}), "structures do not match"),
]


@pytest.mark.parametrize(("name", "change", "words"), CHANGES)
def test_another_crystal_is_not_the_stored_one(
    name: str, change: Callable[[Crystal], Crystal], words: str
) -> None:
    fault = difference(source(name), change(source(name)))
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize("writer", [export.poscar_text, export.extxyz_text])
def test_a_text_that_reads_back_otherwise_is_not_written(
    writer: Callable[[ExportedStructure], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "difference", lambda *_: "ZnO reads back as ZnO2")
    with pytest.raises(InputError, match=re.escape("c-1 cannot be written as")):
        writer(candidate(source(ZNO)))
