"""Relaxed structures as files that other programs read, each with its provenance.

A relaxed cell that is a higher space group at equal energy is written as its symmetrised cell, with
both energies; heights and verdicts are those of the cell as relaxed. Every text is read back before
it is written, and compared with the crystal that it holds.
"""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, system_reason
from hullward.tools.crystal import space_group_symbol
from hullward.tools.crystal.files import difference, write_cif
from hullward.tools.store import (
    MEMBERS,
    SHORT_LIST,
    SHORT_LIST_ORDER,
    fetch_rows,
    open_snapshot,
    write_whole,
)

Format = Literal["cif", "poscar", "extxyz"]
Where = Literal["shortlist", "members", "judged", "relaxed"]

SYMPREC_A = 0.01  # of the symmetrised CIF, Å
SAFE_NAME = re.compile(r"^[a-zA-Z0-9-]+$")
SHORT_ID = 10  # characters: c- and eight
EXPORTED_NAME = re.compile(r"([0-9]{2,}_.+_)?c-[0-9a-f]{8,}")
ALL_IN_ONE = "candidates.extxyz"

_CONDITIONS: dict[Where, str] = {
    "shortlist": SHORT_LIST,
    "members": MEMBERS,  # of every family on it
    "judged": "state = 'judged'",
    "relaxed": "converged",
}


@dataclass(frozen=True)
class ExportedStructure:
    """One relaxed candidate and its provenance."""

    candidate_id: str
    crystal: Crystal  # symmetrised where that is accepted, else as relaxed
    provenance: Mapping[str, str | int | float | None]  # None: not known
    magmoms_mu_b: tuple[float, ...] | None = None  # one an atom, by the potential
    source: str | None = None  # the user's own name of a screened structure


def export_structures(
    directory: Path,
    out: Path,
    *,
    format: Format = "cif",
    ids: list[str] | None = None,
    where: Where = "shortlist",
    symmetrise: bool = True,
    replace: bool = False,
) -> list[Path]:
    """Write the relaxed structures of chosen candidates into the folder `out`.

    ids: these candidates, instead of all that `where` describes.
    symmetrise: accepted symmetrised cells in their space group, whatever the format, and other CIFs
    in the symmetry found within 0.01 Å; otherwise every atom as relaxed, CIFs in P1.
    replace: delete what earlier exports of this format left in `out`.
    One file a candidate for 'cif' and 'poscar', one file of all for 'extxyz'.
    Raises InputError for an unknown format, rule or id, an id that has no relaxed structure, a
    text that does not read back as the stored crystal, an `out` that is not a folder, and, without
    `replace`, one that holds other structures of an earlier export.
    """
    writers: dict[Format, Callable[[ExportedStructure], str]] = {
        "cif": lambda r: cif_text(r, symmetrise=symmetrise),
        "poscar": poscar_text,
        "extxyz": extxyz_text,
    }
    if format not in writers:
        raise InputError(f"unknown format {format!r}; known: {', '.join(writers)}")
    with open_snapshot(directory) as connection:
        chosen = relaxed(connection, ids=ids, where=where, symmetrise=symmetrise)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to export into")
    suffix = {"cif": "cif", "poscar": "vasp", "extxyz": "extxyz"}[format]
    texts = {
        f"{file_stem(candidate, rank, len(chosen))}.{suffix}": writers[format](candidate)
        for rank, candidate in enumerate(chosen, 1)
    }
    if format == "extxyz" and texts:
        texts = {ALL_IN_ONE: "".join(texts.values())}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {system_reason(error, writing=True)}") from error
    earlier = [path for path in _exported(out, suffix) if path.name not in texts]
    changed = [out / ALL_IN_ONE] if _differs(out / ALL_IN_ONE, texts.get(ALL_IN_ONE)) else []
    if (old := [*earlier, *changed]) and not replace:
        raise InputError(
            f"{out} holds {len(old)} files of an earlier export ({old[0].name}…) with other "
            "structures or ranks: name another folder, or delete them with --replace"
        )
    for path in earlier:
        path.unlink()
    return [write_whole(out / name, text) for name, text in texts.items()]


def file_stem(candidate: ExportedStructure, rank: int, count: int) -> str:
    """The name of a candidate's file: rank of `count`, own name, formula, space group, short id.

    >>> one = ExportedStructure("c-4d10d3d6aa", None, {"formula": "NaCl", "space_group": "P2_1/c"})
    >>> file_stem(one, 3, 120)
    '003_NaCl_P21_c_c-4d10d3d6'
    """
    facts = [str(candidate.provenance.get(key) or "") for key in ("formula", "space_group")]
    words = [re.sub("[^A-Za-z0-9._-]", "", f.replace("_", "").replace("/", "_")) for f in facts]
    short = safe_name(candidate.candidate_id)[:SHORT_ID]
    own = re.sub(r"(?i)[.](cif|vasp|jsonl?|csv|parquet)(?=[#)]|$)", "", candidate.source or "")
    own = re.sub("[^A-Za-z0-9]+", "-", own)[:60].strip("-")
    return "_".join(filter(None, (f"{rank:0{max(2, len(str(count)))}}", own, *words, short)))


def _exported(out: Path, suffix: str) -> list[Path]:
    """Files of earlier exports of one format, by the names that this or an earlier version gave."""
    return sorted(p for p in out.glob(f"*.{suffix}") if EXPORTED_NAME.fullmatch(p.stem))


def _differs(path: Path, text: str | None) -> bool:
    return text is not None and path.is_file() and path.read_text(encoding="utf-8") != text


def relaxed(
    connection: duckdb.DuckDBPyConnection,
    *,
    ids: list[str] | None = None,
    where: Where,
    symmetrise: bool = True,
) -> list[ExportedStructure]:
    """The chosen candidates with their relaxed structures, in the order of the short list.

    symmetrise: symmetrised cells where they are accepted.
    """
    if where not in _CONDITIONS:
        raise InputError(f"unknown choice {where!r}; known: {', '.join(_CONDITIONS)}")
    if ids is not None:
        ids = [_full_id(connection, asked) for asked in ids]
    rows = fetch_rows(
        connection,
        f"""SELECT r.*, x.crystal, x.potential, x.potential_sha256, x.energy_scheme, x.protocol,
            x.residual_force_ev_per_a, x.magmoms_mu_b, b.reference_id, b.reference_version,
            s.crystal AS symmetrised, s.energy_ev_per_atom AS symmetrised_energy,
            s.residual_force_ev_per_a AS symmetrised_force, s.magmoms_mu_b AS symmetrised_magmoms,
            s.max_displacement_a
            FROM (SELECT * FROM results WHERE candidate_id IS NOT NULL
                  AND ({"list_contains($ids, candidate_id)" if ids is not None
                  else _CONDITIONS[where]})) r
            JOIN relaxations x USING (relaxation_id)
            LEFT JOIN (FROM symmetrised_cells WHERE accepted AND $symmetrise) s
                USING (relaxation_id)
            LEFT JOIN bases b ON true
            WHERE x.crystal IS NOT NULL ORDER BY {SHORT_LIST_ORDER}""",
        {"symmetrise": symmetrise} | ({"ids": ids} if ids is not None else {}),
    )  # fmt: skip
    found = [_from_row(row) for row in rows]
    without = sorted(set(ids or ()) - {r.candidate_id for r in found})
    if without:
        raise InputError(
            f"no relaxed structure yet of {', '.join(without)}; `hullward resume` relaxes them"
        )
    return found


def _full_id(connection: duckdb.DuckDBPyConnection, asked: str) -> str:
    """The id that begins with these characters, as reports show it."""
    rows = connection.execute("SELECT candidate_id FROM candidates").fetchall()
    known: list[str] = [i for (i,) in rows]
    begun = [i for i in known if i.startswith(asked)] if len(asked) >= SHORT_ID else []
    if asked in known or len(begun) == 1:
        return asked if asked in known else begun[0]
    if begun:
        raise InputError(f"{asked!r} begins {len(begun)} ids: {', '.join(sorted(begun)[:3])}, …")
    near = difflib.get_close_matches(asked, known, n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"{len(known)} candidates are known"
    raise InputError(f"no candidate {asked!r}; {hint}")


def _from_row(row: Mapping[str, Any]) -> ExportedStructure:
    protocol = json.loads(row["protocol"])
    moved = row["symmetrised"] is not None
    magmoms = row["symmetrised_magmoms" if moved else "magmoms_mu_b"]
    return ExportedStructure(
        candidate_id=row["candidate_id"],
        crystal=Crystal.model_validate_json(row["symmetrised"] or row["crystal"]),
        magmoms_mu_b=magmoms and tuple(magmoms),
        source=row["source"],
        provenance={
            "candidate_id": row["candidate_id"],
            **({"source": row["source"]} if row["source"] else {}),
            "formula": row["formula"],
            "space_group": space_group_symbol(row["space_group" if moved else "space_group_tight"]),
            "energy_ev_per_atom": row["symmetrised_energy" if moved else "energy_ev_per_atom"],
            **(_symmetrised_from(row) if moved else {}),
            "e_above_reference_ev_per_atom": row["e_above_reference_ev_per_atom"],
            "e_above_union_ev_per_atom": row["e_above_union_ev_per_atom"],
            "reference": row["reference_id"],
            "reference_version": row["reference_version"],
            "energy_scheme": row["energy_scheme"],
            "potential": row["potential"],
            "potential_sha256": row["potential_sha256"],
            "protocol": " ".join(f"{key}={value}" for key, value in protocol.items()),
            "residual_force_ev_per_a": row[
                "symmetrised_force" if moved else "residual_force_ev_per_a"
            ],
            "converged": str(row["converged"]).lower(),
            "state": row["state"],
            "standing": "; ".join(filter(None, (row["standing"], row["qualifier"]))) or None,
            "operator": row["operator"],
            "family": row["family_id"],
            "family_size": row["family_size"],
            "parents": " ".join(row["parents"] or ()),
            "method": "machine-learned potential, not DFT",
        },
    )


def _symmetrised_from(row: Mapping[str, Any]) -> dict[str, str | float | None]:
    """What a symmetrised cell was made from, and at what energy."""
    return {
        "symmetrised_within_a": row["symmetrised_within_a"],
        "symmetrised_higher_ev_per_atom": row["symmetrised_higher_ev_per_atom"],
        "max_displacement_a": row["max_displacement_a"],
        "relaxed_space_group": space_group_symbol(row["space_group_tight"]),
        "relaxed_energy_ev_per_atom": row["energy_ev_per_atom"],
        "heights_and_convergence": "of the cell as relaxed",
    }


def cif_text(candidate: ExportedStructure, *, symmetrise: bool = True) -> str:
    """A CIF with provenance comments at the top; in P1 where the symmetry changes the crystal."""
    try:
        body, setting = write_cif(candidate.crystal, SYMPREC_A if symmetrise else None)
    except ValueError as error:
        raise InputError(f"{candidate.candidate_id} cannot be written: {error}") from error
    notes = [f"# {key}: {_one_line(_word(value))}" for key, value in candidate.provenance.items()]
    return "\n".join(["# Hullward", *notes, f"# setting: {_one_line(setting)}", body])


def poscar_text(candidate: ExportedStructure) -> str:
    """A VASP 5 POSCAR, species grouped, provenance in its first line."""
    from pymatgen.io.vasp import Poscar

    moved = ("symmetrised_within_a", "energy_ev_per_atom", "relaxed_energy_ev_per_atom")
    energy = ("e_above_union_ev_per_atom", "reference", "potential")
    found = moved if "symmetrised_within_a" in candidate.provenance else ()
    shown = ("candidate_id", "formula", "space_group", *found, *energy)
    comment = " ".join(f"{key}={_word(candidate.provenance.get(key))}" for key in shown)
    structure = candidate.crystal.to_structure()
    text = Poscar(structure, comment=_one_line(comment), sort_structure=True).get_str()
    read = Poscar.from_str(text).structure
    return _checked(candidate, text, Crystal.from_structure(read), "POSCAR")


def extxyz_text(candidate: ExportedStructure) -> str:
    """One extxyz frame: provenance in its info keys, the potential's energy (eV) and moments.

    Forces are not stored with a relaxation; `residual_force_ev_per_a` is the largest of them.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read, write

    crystal = candidate.crystal
    atoms = Atoms(
        crystal.species, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True
    )
    atoms.info = {key: _one_line(_word(v)) if isinstance(v, str) or v is None else v
                  for key, v in candidate.provenance.items()}  # fmt: skip
    results: dict[str, Any] = {}
    if (energy := candidate.provenance.get("energy_ev_per_atom")) is not None:
        results["energy"] = float(energy) * len(crystal.species)
    if candidate.magmoms_mu_b is not None:
        results["magmoms"] = candidate.magmoms_mu_b
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    frame = read(io.StringIO(text.getvalue()), format="extxyz")
    return _checked(candidate, text.getvalue(), Crystal.from_ase(frame), "extxyz")


def _checked(candidate: ExportedStructure, text: str, read: Crystal, format: str) -> str:
    """The text; raises InputError if it does not read back as the stored crystal."""
    if fault := difference(candidate.crystal, read):
        raise InputError(f"{candidate.candidate_id} cannot be written as {format}: {fault}")
    return text


def safe_name(identifier: str) -> str:
    """The id, if it can be a file name on any system; raises InputError otherwise."""
    if not SAFE_NAME.fullmatch(identifier):
        raise InputError(f"{identifier!r} cannot name a file: only letters, digits and hyphens can")
    return identifier


def _word(value: str | int | float | None) -> str:
    if value is None or value == "":
        return "unknown" if value is None else "none"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _one_line(words: str) -> str:
    return " ".join(words.split())
