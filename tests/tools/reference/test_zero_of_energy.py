"""CHGNet's energies are corrected already: textbook oxides sit on the Materials Project's hull.

Another correction would move Fe2O3 by −1.3 eV/atom and NaCl by −0.3 (MP2020's own table); none at
all on the hull's side would do the same upwards. Both are far outside what is asked here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import Evaluation, load_potential, potential_card
from hullward.tools.hull import check_compatible
from hullward.tools.records import Protocol
from hullward.tools.reference import judge_entries, load_reference
from hullward.tools.reference.sources import read_entries
from hullward.tools.relax.stream import relax_one

PROTOCOL = Protocol(fmax_ev_per_a=0.1, max_steps=200)
TABLE = "mp2020_whole_database_hull.parquet"

# space group, a b c α β γ (Å, degrees), sites: published structures, rounded
OXIDES = {
    "Fe2O3": (
        "R-3c",
        (5.04, 5.04, 13.75, 90, 90, 120),
        [("Fe", 0, 0, 0.355), ("O", 0.306, 0, 0.25)],
    ),
    "CuO": (
        "C2/c",
        (4.68, 3.42, 5.13, 90, 99.5, 90),
        [("Cu", 0.25, 0.25, 0), ("O", 0, 0.416, 0.25)],
    ),
    "NiO": ("Fm-3m", (4.18, 4.18, 4.18, 90, 90, 90), [("Ni", 0, 0, 0), ("O", 0.5, 0.5, 0.5)]),
    "NaCl": ("Fm-3m", (5.64, 5.64, 5.64, 90, 90, 90), [("Na", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5)]),
    "Mn2O3": (
        "Ia-3",
        (9.41, 9.41, 9.41, 90, 90, 90),
        [("Mn", 0.25, 0.25, 0.25), ("Mn", 0.285, 0, 0.25), ("O", 0.129, 0.147, -0.083)],
    ),
}


def textbook(formula: str) -> Crystal:
    from pymatgen.core import Lattice, Structure

    group, cell, sites = OXIDES[formula]
    structure = Structure.from_spacegroup(
        group, Lattice.from_parameters(*cell), [s[0] for s in sites], [s[1:] for s in sites]
    )
    return Crystal.from_structure(structure.get_primitive_structure())


@pytest.mark.parametrize("formula", OXIDES)
def test_textbook_compounds_sit_on_the_hull(formula: str, shared_data: Path) -> None:
    reference = load_reference(f"file:{shared_data / 'hull' / TABLE}")
    check_compatible(reference, potential_card("chgnet-0.3.0"), PROTOCOL)
    crystal = textbook(formula)
    assert crystal.formula == formula
    relaxed = relax_one(formula, crystal, load_potential("chgnet-0.3.0"), PROTOCOL)
    assert relaxed.converged
    assert relaxed.energy_ev_per_atom is not None
    distance = reference.hull(crystal.chemsys).distance(crystal.amounts, relaxed.energy_ev_per_atom)
    print(f"{formula}: {1000 * distance.e_above_hull_ev_per_atom:+.0f} meV/atom")
    assert abs(distance.e_above_hull_ev_per_atom) < 0.2


def corrected_again(crystal: Crystal, energy_ev_per_atom: float) -> dict[str, Any]:
    """What pymatgen makes of CHGNet's energy when it takes it for plain DFT."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    u = {"Fe": 5.3} if "Fe" in crystal.species else {}
    raw = ComputedStructureEntry(
        crystal.to_structure(),
        energy_ev_per_atom * crystal.n_atoms,
        parameters={
            "run_type": "GGA+U" if u else "GGA",
            "is_hubbard": bool(u),
            "hubbards": {el: u.get(el, 0.0) for el in set(crystal.species)} if u else {},
        },
        entry_id="again",
    )
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    done = scheme.process_entry(raw)
    assert done is not None
    plain: dict[str, Any] = json.loads(json.dumps(done.as_dict(), default=str))
    return plain


def save(path: Path, entries: list[dict[str, Any]], **sidecar: Any) -> Path:
    path.write_text(json.dumps(entries))
    path.with_name(f"{path.stem}.reference.json").write_text(json.dumps(sidecar))
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:pymatgen")
@pytest.mark.parametrize(("formula", "second_correction"), [("Fe2O3", -1.31), ("NaCl", -0.31)])
def test_chgnets_own_energy_reaches_the_hull_and_nothing_is_added(
    formula: str, second_correction: float, tmp_path: Path
) -> None:
    """No data needed: the published path's energy, ours, and the judged entry's are one number."""
    from chgnet.model import CHGNet

    crystal = textbook(formula)
    published = float(CHGNet.load(verbose=False).predict_structure(crystal.to_structure())["e"])
    (ours,) = load_potential("chgnet-0.3.0").evaluate([crystal])
    assert isinstance(ours, Evaluation)
    assert ours.energy_ev_per_atom == pytest.approx(published, abs=1e-4)

    again = corrected_again(crystal, published)
    assert again["correction"] / crystal.n_atoms == pytest.approx(second_correction, abs=0.02)
    own = again | {"correction": 0.0, "energy_adjustments": []}
    (phase,) = read_entries(save(tmp_path / "own.json", [own], corrected=True)).phases
    assert phase.energy_ev_per_atom == pytest.approx(published, abs=1e-12)

    with pytest.raises(InputError, match="would count twice"):
        read_entries(save(tmp_path / "again.json", [again], corrected=True))
    said = again | {"data": {"potential": "CHGNet 0.3.0"}}
    with pytest.raises(InputError, match=r"the CHGNet entry.*would count twice"):
        read_entries(save(tmp_path / "said.json", [said]))
    named = own | {"data": {"potential": "CHGNet 0.3.0"}}
    assert read_entries(save(tmp_path / "named.json", [named])).phases[0] == phase.model_copy(
        update={"source": "named.json#1"}
    )


def test_haematite_sits_on_the_embedded_hull_with_chgnets_own_energy(tmp_path: Path) -> None:
    """Relaxed here and judged as an entry; another correction would put it 1.3 eV/atom below."""
    relaxed = relax_one("x", textbook("Fe2O3"), load_potential("chgnet-0.3.0"), PROTOCOL)
    assert relaxed.converged
    assert relaxed.energy_ev_per_atom is not None
    entry = {
        "entry_id": "haematite",
        "composition": {"Fe": 2, "O": 3},
        "energy": 5 * relaxed.energy_ev_per_atom,
        "correction": 0.0,
        "parameters": {"potential": "chgnet-0.3.0"},
    }
    entries = read_entries(save(tmp_path / "e.json", [entry]))
    (row,) = judge_entries(entries, load_reference("embedded"))["results"]
    assert row["energy_ev_per_atom"] == pytest.approx(relaxed.energy_ev_per_atom, abs=1e-12)
    assert abs(row["e_above_hull_ev_per_atom"]) < 0.05


def test_energies_that_do_not_compare_are_refused_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    raw = {"entry_id": "x", "composition": {"Fe": 2, "O": 3}, "energy": -33.0, "correction": 0.0}
    card = potential_card("chgnet-0.3.0")
    with pytest.raises(InputError, match="1 of 1 entries are not on the 'mp2020-corrected' scale"):
        load_reference(f"file:{save(tmp_path / 'raw.json', [raw])}")
    honest = save(tmp_path / "honest.json", [raw], energy_scheme="uncorrected-pbe")
    with pytest.raises(PreflightError, match=r"'uncorrected-pbe'.*chgnet-0.3.0 predicts"):
        check_compatible(load_reference(f"file:{honest}"), card, PROTOCOL)
    with pytest.raises(PreflightError, match="a second correction does not convert"):
        judge_entries(read_entries(honest), load_reference("embedded"))
