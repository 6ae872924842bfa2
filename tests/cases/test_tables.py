"""Tables, structures and references of others: each file is read right, or refused with a reason.

A list holds what a file gives, in order; a text is a part of the one message that refuses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hullward.models.errors import InputError
from hullward.tools.crystal.files import (
    CifReader,
    parse_raw,
    read_inputs,
    read_known,
    skipped_note,
    structure_files,
)
from hullward.tools.records import Flaw
from hullward.tools.reference import judge_entries
from hullward.tools.reference.sources import read_entries, read_file

FILES = Path(__file__).parent / "files"
Entry = tuple[str, str, float, str | None]  # id, formula, eV/atom, formula of the crystal

# 'formula/atoms', or the reason of a row and how its detail begins
INPUTS: dict[str, list[str] | str] = {
    "files/c_cif.csv": ["NaCl/8"],
    "files/c_cif_utf8sig.csv": ["NaCl/8"],
    "files/p_cif_cat.parquet": ["NaCl/8", "NaCl/8"],
    "files/p_cif_none.parquet": ["NaCl/8", "empty: no text", "empty: no text"],
    "files/p_f32.parquet": ["CsCl/2"],
    "files/p_flat.parquet": ["malformed_row: 2 species but 6 coordinates"],
    "files/p_json.parquet": ["CsCl/2"],
    "files/p_nested_np.parquet": ["CsCl/2"],
    "files/p_ok.parquet": ["CsCl/2"],
    "files/p_struct.parquet": ["CsCl/2"],
    "files/p_struct_str.parquet": ["CsCl/2"],
    "files/s_D.jsonl": ["unknown_element: site 2: 'D' is not an element"],
    "files/s_bare.json": ["CsCl/2"],
    "files/s_columns.json": "s_columns.json is a table written as columns (orient='columns' or 'l",
    "files/s_latparam.jsonl": ["malformed_row: lattice: expected three vectors, found 'None'"],
    "files/s_list.json": ["CsCl/2", "CsCl/2"],
    "files/s_mol.jsonl": ["malformed_row: lattice: expected three vectors, found 'None'"],
    "files/s_nan.jsonl": ["malformed_row: site 2: expected three finite numbers, found "],
    "files/s_occ_1.0.jsonl": ["CsCl/2"],
    "files/s_occ_float.jsonl": ["disordered: site 2 is partially occupied"],
    "files/s_ok.jsonl": ["CsCl/2"],
    "files/s_ox.jsonl": ["CsCl/2"],
    "files/s_records_dict.json": "s_records_dict.json is a table written as rows by name (orient=",
    "files/s_slab.jsonl": ["malformed_row: not periodic in three directions: '[True, Tru"],
    "files/s_split.json": "s_split.json is a table written as columns and data (orient='split' or",
    "files/s_str.jsonl": ["CsCl/2"],
    "files/s_xyz_only.jsonl": ["malformed_row: site 1: expected species and abc, found \"{'sp"],
    "files/t_Z.jsonl": ["malformed_row: site 1: expected a symbol, found '55'"],
    "files/t_flat.jsonl": ["malformed_row: 2 species but 6 coordinates"],
    "files/t_json.csv": ["CsCl/2"],
    "files/t_neg.jsonl": ["CsCl/2"],
    "files/t_nprepr.csv": ["malformed_row: lengths: expected a list, found '[4. 4. 4.]'"],
    "files/t_ok.jsonl": ["CsCl/2"],
    "files/t_pyrepr.csv": ["malformed_row: species: expected a list, found \"['Cs', 'Cl']"],
    "files/t_rad.jsonl": ["CsCl/2"],
    "files/t_semi.csv": ": expected `text`, `raw`, `structure`, `cif`, or all of `lengths`, `angl",
    "files/x_X.extxyz": ["unknown_element: site 2: 'X' is not an element"],
    "files/x_Z.extxyz": ["CsCl/2"],
    "files/x_crlf.extxyz": ["CsCl/2"],
    "files/x_extra.extxyz": ["CsCl/2", "CsCl/2"],
    "files/x_label.extxyz": ["malformed_row: ase reads no frame: KeyError: 'Cl1'"],
    "files/x_lat_lower.extxyz": ['malformed_row: no lattice of three vectors; write Lattice="a'],
    "files/x_magmom.extxyz": ["CsCl/2"],
    "files/x_nolattice.xyz": ['malformed_row: no lattice of three vectors; write Lattice="a'],
    "files/x_nopbc.extxyz": ["CsCl/2"],
    "files/x_ok.extxyz": ["CsCl/2"],
    "files/x_order.extxyz": ["CsCl/2"],
    "files/x_short.extxyz": ["malformed_row: ase reads no frame: XYZError: ase.io.extxyz: "],
    "files/x_slab.extxyz": ["malformed_row: not periodic in three directions: '[True, Tru"],
    "files/x_stress6.extxyz": ["CsCl/2"],
    "files/x_two.extxyz": ["CsCl/2", "CsCl/2"],
    "odd/empty.cif": ["empty: no text"],
    "odd/empty.csv": ": expected `text`, `raw`, `structure`, `cif`, or all of `lengths`, `angles`",
    "odd/empty.extxyz": "contains no frames. An extxyz frame starts with its number of atoms.",
    "odd/empty.jsonl": ": expected `text`, `raw`, `structure`, `cif`, or all of `lengths`, `angle",
    "odd/empty.parquet": "cannot be read as .parquet: 'Parquet file size is 0 bytes'",
    "odd/list.json": ": expected `text`, `raw`, `structure`, `cif`, or all of `lengths`, `angles`",
    "odd/null.json": ": expected `text`, `raw`, `structure`, `cif`, or all of `lengths`, `angles`",
    "own/tables/inputs/CONTCAR": ["CsCl/2"],
    "own/tables/inputs/POSCAR": ["CsCl/2"],
    "own/tables/inputs/POSCAR.gz": ["CsCl/2"],
    "own/tables/inputs/POSCAR_relaxed": ["CsCl/2"],
    "own/tables/inputs/alias_bomb.yaml": "alias_bomb.yaml: more than 5,000,000 values, aliases wr",
    "own/tables/inputs/alias_of_itself.yaml": "alias_of_itself.yaml: nested too deeply, or an ali",
    "own/tables/inputs/bom.extxyz": ["CsCl/2"],
    "own/tables/inputs/bom.json": ["CsCl/2"],
    "own/tables/inputs/bom.jsonl": ["CsCl/2"],
    "own/tables/inputs/bom.poscar": ["CsCl/2"],
    "own/tables/inputs/cartesian.vasp": ["CsCl/2"],
    "own/tables/inputs/coordinates_missing.vasp": [
        "malformed_row: pymatgen reads no POSCAR: IndexError: list in"
    ],
    "own/tables/inputs/crlf.vasp": ["CsCl/2"],
    "own/tables/inputs/cut.json": "cannot be read as .json: 'Unterminated string starting at: lin",
    "own/tables/inputs/cut_short.jsonl.gz": "cut_short.jsonl.gz is damaged, cut short or not gzip",
    "own/tables/inputs/decorated.jsonl": ["CsCl/2"],
    "own/tables/inputs/deep.json": "cannot be read as .json: 'maximum recursion depth exceeded wh",
    "own/tables/inputs/deuterium.extxyz": ["malformed_row: ase reads no frame: KeyError: 'D'"],
    "own/tables/inputs/deuterium.vasp": ["unknown_element: line 6: 'D' is not an element"],
    "own/tables/inputs/dipole2.extxyz": ["CsCl/2"],
    "own/tables/inputs/empty.vasp": [
        "malformed_row: pymatgen reads no POSCAR: ValueError: Empty P"
    ],
    "own/tables/inputs/energy_text.extxyz": ["CsCl/2"],
    "own/tables/inputs/entries.yaml": ["CsCl/2"],
    "own/tables/inputs/entry.json": ["CsCl/2"],
    "own/tables/inputs/huge_counts.vasp": ["too_large: 100000000000 sites, limit 500"],
    "own/tables/inputs/minus_two.extxyz": [
        "malformed_row: ase reads no frame: XYZError: ase.io.extxyz: "
    ],
    "own/tables/inputs/mixed.extxyz": [
        "CsCl/2",
        "malformed_row: not periodic in three directions: '[True, Fal",
        "CsCl/2",
    ],
    "own/tables/inputs/mixed_site.jsonl": ["disordered: site 1 is partially occupied"],
    "own/tables/inputs/molecule.json": [
        "malformed_row: lattice: expected three vectors, found 'None'"
    ],
    "own/tables/inputs/molecule.traj": [
        "malformed_row: not periodic in three directions: '[False, Fa"
    ],
    "own/tables/inputs/nacl.cif.gz": ["NaCl/8"],
    "own/tables/inputs/nan_position.extxyz": [
        "malformed_row: site 2: expected three finite numbers, found "
    ],
    "own/tables/inputs/not.yaml": "not.yaml is no YAML: 'while parsing a flow node\\ndid not find",
    "own/tables/inputs/not_gzip.cif.gz": "not_gzip.cif.gz is damaged, cut short or not gzip: Not",
    "own/tables/inputs/open_quote.csv": "open_quote.csv: line 14: the file ends inside quotes",
    "own/tables/inputs/null_rows.jsonl": [
        "empty: no structure given",
        "CsCl/2",
        "malformed_row: expected an object, found '[]'",
    ],
    "own/tables/inputs/number.json": ": expected `text`, `raw`, `structure`, `cif`, or all of `le",
    "own/tables/inputs/odd name 100% 'q' ü #1.jsonl": ["CsCl/2"],
    "own/tables/inputs/one_atom_more.extxyz": [
        "Cs/1",
        "malformed_row: ase reads no frame: XYZError: ase.io.extxyz: ",
    ],
    "own/tables/inputs/one_bad_row.jsonl": [
        "CsCl/2",
        "malformed_row: not JSON, begins '{broken'",
        "CsCl/2",
    ],
    "own/tables/inputs/one_row.json": ["CsCl/2"],
    "own/tables/inputs/orient_columns_rows.json": "orient_columns_rows.json is a table written as",
    "own/tables/inputs/orient_columns_text.json": "orient_columns_text.json is a table written as",
    "own/tables/inputs/orient_index_rows.json": "orient_index_rows.json is a table written as row",
    "own/tables/inputs/orient_list.json": "orient_list.json is a table written as columns (orient",
    "own/tables/inputs/orient_table.json": "orient_table.json is a table written as columns and d",
    "own/tables/inputs/other.db": "other.db is no ASE database: OperationalError: no such table:",
    "own/tables/inputs/other_class.json": ["CsCl/2"],
    "own/tables/inputs/pickle.traj": "pickle.traj is no trajectory of ASE 3.10 or later: InvalidU",
    "own/tables/inputs/potcar_names.vasp": ["CsCl/2"],
    "own/tables/inputs/python_tag.yaml": "python_tag.yaml is no YAML: 'could not determine a cons",
    "own/tables/inputs/rows.jsonl.gz": ["CsCl/2", "CsCl/2"],
    "own/tables/inputs/selective.vasp": ["CsCl/2"],
    "own/tables/inputs/slab.traj": ["malformed_row: not periodic in three directions: '[True, Tru"],
    "own/tables/inputs/stress9.extxyz": ["CsCl/2"],
    "own/tables/inputs/structure.yaml": ["CsCl/2"],
    "own/tables/inputs/table.csv.gz": ["CsCl/2"],
    "own/tables/inputs/ten_million_atoms.extxyz": ["too_large: 9999999 sites, limit 500"],
    "own/tables/inputs/three_scales.vasp": [
        "malformed_row: pymatgen reads no POSCAR: ValueError: could n"
    ],
    "own/tables/inputs/tritium.jsonl": ["unknown_element: site 2: 'T' is not an element"],
    "own/tables/inputs/two.db": [
        "CsCl/2",
        "malformed_row: not periodic in three directions: '[True, Tru",
    ],
    "own/tables/inputs/two.traj": ["CsCl/2", "CsCl/2"],
    "own/tables/inputs/utf16.jsonl": ["CsCl/2"],
    "own/tables/inputs/vasp4.vasp": [
        "malformed_row: no element symbols (VASP 4); write them in li"
    ],
    "own/tables/inputs/vasp4_labels.vasp": ["CsCl/2"],
    "own/tables/inputs/virial6.extxyz": ["CsCl/2"],
    "own/tables/inputs/volume.vasp": ["CsCl/2"],
    "own/tables/inputs/words.traj": "words.traj is no trajectory of ASE 3.10 or later: InvalidULM",
    "own/tables/inputs/words.vasp": [
        "malformed_row: pymatgen reads no POSCAR: ValueError: could n"
    ],
    "relax_cells.jsonl": [
        "NaCl/8",
        "NaCl/2",
        "NaCl/2",
        "NaCl/2",
        "NaCl/2",
        "NaCl/2",
        "NaCl/24",
        "Cu/1",
        "W/1",
        "Cs/1",
        "H2/2",
        "H2/1",
        "He/1",
        "Po/1",
        "Fe/2",
        "Si/2",
        "LiF/2",
        "LiF/2",
    ],
    "relax_dyn.jsonl": [
        "Si/2",
        "Si/2",
        "LiF/2",
        "LiF/2",
        "Cs/1",
        "H2/2",
        "NaCl/2",
        "NaCl/2",
        "C/2",
    ],
}

KNOWN: dict[str, list[tuple[str, str]] | str] = {
    "known/k.jsonl": [("user:k.jsonl#0", "NaCl"), ("user:k.jsonl#1", "KCl")],
    "known/k_blankrow.csv": [("a", "NaCl"), ("b", "KCl")],
    "known/k_cat.parquet": [("a", "NaCl"), ("b", "KCl")],
    "known/k_dup.csv": [("a", "NaCl"), ("a#1", "KCl")],
    "known/k_dup3.csv": [("a", "NaCl"), ("a#1", "KCl"), ("a#1#2", "NaCl")],
    "known/k_idx_id.csv": [("0", "NaCl"), ("1", "KCl")],
    "known/k_int.csv": [("1000041", "NaCl"), ("9008678", "KCl")],
    "known/k_int.parquet": [("1000041", "NaCl"), ("9008678", "KCl")],
    "known/k_occdot.csv": [("a", "TiO2")],
    "known/k_str.csv": [("cod-1", "NaCl"), ("cod-2", "KCl")],
    "known/k_zero.csv": [("0012", "NaCl"), ("0013", "KCl")],
    "own/tables/known/POSCAR": [("user:POSCAR#0", "CsCl")],
    "own/tables/known/float_ints.parquet": [("1", "NaCl"), ("2", "NaCl")],
    "own/tables/known/floats.csv": [("1.0", "NaCl"), ("2.5", "NaCl")],
    "own/tables/known/index_and_id.csv": [("0", "NaCl"), ("-1", "NaCl")],
    "own/tables/known/known.traj": [("user:known.traj#0", "CsCl")],
    "own/tables/known/mp_id.csv": [("mp-22862", "NaCl")],
    "own/tables/known/none_word.csv": [("None", "NaCl"), ("nan", "NaCl")],
    "own/tables/known/null_id.parquet": "known phase null_id.parquet#1: no id in this row; name e",
    "own/tables/known/numpy_ints.parquet": [("0", "NaCl"), ("7", "NaCl")],
    "own/tables/known/one_missing.csv": "known phase one_missing.csv#1: no material_id in this ro",
    "own/tables/known/scientific.csv": [("1e5", "NaCl"), ("00", "NaCl")],
    "own/tables/known/slab.jsonl": "known phase slab.jsonl#0: malformed_row: not periodic in thre",
    "own/tables/known/spaces.csv": [("a b", "NaCl"), ("ü/1", "NaCl")],
    "own/tables/known/structures.json": [
        ("user:structures.json#0", "CsCl"),
        ("user:structures.json#1", "NaCl"),
    ],
    "own/tables/known/wrong_formula.csv": "wrong_formula.csv#1: formula KCl but its structure hol",
    "own/tables/known/words.csv": [("NA", "NaCl"), ("null", "NaCl")],
}

ENTRIES: dict[str, list[Entry] | str] = {
    "hull/big_q.csv": "big_q.csv: formation_energy_per_atom of row 0 is not a number: '1e400'",
    "hull/blankrow_q.csv": "blankrow_q.csv: formation_energy_per_atom of row 1 is not a number: '",
    "hull/bom_q.csv": [("row-0", "NaCl", -3.6855, None)],
    "hull/caps_q.csv": "caps_q.csv: needs a column of formulas (formula, composition, reduced_for",
    "hull/cases_q.csv": "cases_q.csv: no energy of the elements No, Po on 'mp2020-corrected'",
    "hull/comma_q.csv": "comma_q.csv: formation_energy_per_atom of row 0 is not a number: '-2,1'",
    "hull/comment_q.csv": "comment_q.csv: needs a column of formulas (formula, composition, reduc",
    "hull/crlf_q.csv": [("row-0", "NaCl", -3.6855, None)],
    "hull/csv_empty.csv": "cannot be read as a table: it is empty",
    "hull/csv_headeronly.csv": [],
    "hull/deutE_q.csv": "deutE_q.csv: row 0: 'LiD' is no formula: D is an isotope of H, of the sa",
    "hull/deutE_ref.csv": "deutE_ref.csv: row 2: 'D2' is no formula: D is an isotope of H, of the",
    "hull/deut_q.csv": "deut_q.csv: row 0: 'LiD' is no formula: D is an isotope of H, of the same",
    "hull/deut_ref.csv": "deut_ref.csv: row 2: 'LiD' is no formula: D is an isotope of H, of the",
    "hull/dummy_q.csv": "dummy_q.csv: row 0: 'XO2' is no formula: 'X' is no element; symbols are",
    "hull/dupcol_q.csv": "dupcol_q.csv: 'formation_energy_per_atom' and 'formation_energy_per_ato",
    "hull/ent_D.json": "ent_D.json#2: entry 'D2': \"{'D': 2}\" is no composition: D is an isotop",
    "hull/ent_adjustments_only.json": "ent_adjustments_only.json: 1 of 6 entries are not on the '",
    "hull/ent_comp_str.json": "ent_comp_str.json#6: not a ComputedEntry (ValueError: composition:",
    "hull/ent_dummy.json": "ent_dummy.json#6: entry 'lmo': \"{'Li': 1, 'X0+': 1, 'O': 2}\" i",
    "hull/ent_foo.json": ": expected a list of ComputedEntry dictionaries",
    "hull/ent_huge_cell.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "LiMnO2", -7.25, None),
    ],
    "hull/ent_mismatch.json": "ent_mismatch.json#3: entry 'nacl': composition NaCl but its struct",
    "own/tables/hull/open_quote.csv": "open_quote.csv: line 3: the file ends inside quotes",
    "own/tables/hull/null_amount.json": "null_amount.json#1: not a ComputedEntry (ValueError: comp",
    "own/tables/hull/r2scan_in_data.json": "e.g. salt (NaCl: run type r2SCAN)",
    "hull/ent_nan.json": "ent_nan.json#6: not a ComputedEntry (energy_ev_per_atom: Input should b",
    "hull/ent_neg_amount.json": "ent_neg_amount.json#6: entry 'lmo': \"{'Li': -1, 'Mn': 1, '",
    "hull/ent_noeps_dict_entries.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "LiMnO2", -7.25, None),
    ],
    "hull/ent_null_energy.json": "ent_null_energy.json#6: not a ComputedEntry (TypeError: float()",
    "hull/ent_ok.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "LiMnO2", -7.25, None),
    ],
    "hull/ent_ox.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("ox", "LiMnO2", -7.25, None),
    ],
    "hull/ent_pmg_ox.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -3.7, "NaCl"),
    ],
    "hull/ent_r2scan.json": "ent_r2scan.json: 1 of 4 entries are not on the 'mp2020-corrected' sc",
    "hull/ent_r2scan_suffix.json": "ent_r2scan_suffix.json: 1 of 4 entries are not on the 'mp2020",
    "hull/ent_str_energy.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "LiMnO2", -7.25, None),
    ],
    "hull/ent_tiny_amounts.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "Li1Mn1O2Na1e-09", -7.25, None),
    ],
    "hull/ent_yb_lost.json": [("O2", "O2", -4.95, None), ("Yb2O3", "O2", -14.0, None)],
    "hull/ent_zero_amount.json": [
        ("Li", "Li", -1.9, None),
        ("Mn", "Mn", -9.0, None),
        ("O2", "O2", -4.95, None),
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("lmo", "LiMnO2", -7.25, None),
    ],
    "hull/forms_q.csv": [
        ("row-0", "NaCl", -3.6855, None),
        ("row-1", "NaCl", -3.6855, None),
        ("row-2", "NaCl", -3.6855, None),
        ("row-3", "NaCl", -3.6855, None),
        ("row-4", "Na0.5Cl0.5", -3.6855, None),
        ("row-5", "NaCl", -3.6855, None),
        ("row-6", "NaCl", -3.6855, None),
    ],
    "hull/gp_q.csv": [
        ("a", "Li", -2.0, None),
        ("b", "Fe", -8.0, None),
        ("c", "O2", -5.0, None),
        ("d", "LiFe3O", -8.0, None),
    ],
    "hull/gp_ref.csv": [
        ("a", "Li", -2.0, None),
        ("b", "Fe", -8.0, None),
        ("c", "O2", -5.0, None),
        ("d", "LiFe3O", -8.0, None),
    ],
    "hull/hex_q.csv": "hex_q.csv: formation_energy_per_atom of row 1 is not a number: '-0x2'",
    "hull/hyd_q.csv": "hyd_q.csv: row 0: 'CuSO4.5H2O' is no formula: 4.5 may be a decimal or the",
    "hull/hyd_ref.csv": [
        ("a", "Cu", -4.0992, None),
        ("b", "S", -4.1364, None),
        ("c", "O2", -4.9467, None),
        ("d", "H2", -3.3927, None),
        ("e", "CuSO4", -5.9704, None),
        ("f", "H2O", -4.9007, None),
    ],
    "hull/idx_q.csv": [("row-0", "NaCl", -3.6855, None)],
    "hull/inf_q.csv": "inf_q.csv: formation_energy_per_atom of row 0 is not a number: '-inf'",
    "hull/missing_q.csv": "missing_q.csv: formation_energy_per_atom of row 1 is not a number: ''",
    "hull/nan_q.csv": [("row-0", "NaN", -4.9295, None), ("row-1", "Na3N", -3.026, None)],
    "hull/nan_ref.csv": [
        ("a", "Na", -1.3225, None),
        ("b", "N2", -8.3365, None),
        ("c", "NaN", -4.8795, None),
        ("d", "NaN3", -6.833, None),
    ],
    "hull/opt_half.jsonl": [("half", "NaCl", -2.9855, None)],
    "hull/opt_names.jsonl": [("names", "NaCl", -2.8855, "NaCl")],
    "hull/opt_nospecies.jsonl": [("nospecies", "NaCl", -3.4855, "NaCl")],
    "hull/opt_nulls.jsonl": "opt_nulls.jsonl#2: not an OPTIMADE structure (lattice.0.0: Input sho",
    "hull/opt_ok.jsonl": [("ok", "NaCl", -3.5855, "NaCl")],
    "hull/opt_slab.jsonl": [("slab", "C", -9.1787, None)],
    "hull/opt_vac.jsonl": [("vac", "NaCl", -3.0855, None)],
    "hull/pq_cat.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/pq_compdict.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/pq_decimal.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/pq_index.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/pq_intid.parquet": [
        ("1", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("3", "NaCl", -3.4, None),
    ],
    "hull/pq_isphase_null.parquet": "pq_isphase_null.parquet: is_phase must be true or false, fou",
    "hull/pq_none.parquet": "pq_none.parquet: row 2: no formula: found 'None'",
    "hull/pq_nullable.parquet": "pq_nullable.parquet: energy_per_atom of row 1 is not a number: '",
    "hull/pq_ok.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/pq_str.parquet": [
        ("row-0", "Na", -1.3, None),
        ("row-1", "Cl2", -1.8, None),
        ("row-2", "NaCl", -3.4, None),
    ],
    "hull/same_id.json": [
        ("same_id.json#1", "Mn", -9.0, None),
        ("same_id.json#2", "Fe", -8.0, None),
        ("same_id.json#3", "MnFe", -8.6, None),
        ("same_id.json#4", "MnFe", -8.55, None),
        ("same_id.json#5", "Mn2Fe", -8.6667, None),
        ("same_id.json#6", "MnFe2", -8.4, None),
    ],
    "hull/same_idx.json": "same_idx.json#2: id 'x' occurs with two energies",
    "hull/semi_q.csv": "semi_q.csv: needs a column of formulas (formula, composition, reduced_for",
    "hull/spacehdr_q.csv": "spacehdr_q.csv: needs a column of formulas (formula, composition, red",
    "hull/thousands_q.csv": "thousands_q.csv: energy_per_atom of row 0 is not a number: '-1,234.5",
    "hull/ties_ref.csv": [
        ("a", "Ca", -2.0, None),
        ("b", "As", -4.5, None),
        ("c", "CaAs4", -4.6, None),
        ("d", "CaAs4", -4.6, None),
        ("e", "CaAs4", -4.6, None),
        ("f", "CaAs4", -4.599, None),
    ],
    "hull/tiny_q.csv": [
        ("row-0", "Fe1e-05Ni1", -5.7802, None),
        ("row-1", "Fe9e-05Ni0.99991", -5.8804, None),
        ("row-2", "Fe1e-09Ni1", -5.7811, None),
    ],
    "hull/uminus_q.csv": "uminus_q.csv: formation_energy_per_atom of row 0 is not a number: '\\u22",
    "hull/unary_q.csv": [("row-0", "Si", -5.35, None), ("row-1", "Si", -5.45, None)],
    "hull/unary_ref.csv": [("a", "Si", -5.4, None), ("b", "Si", -5.3, None)],
    "hull/zero_q.csv": "zero_q.csv: row 0: 'Na0Cl1' is no formula: an amount is 0",
    "own/tables/hull/below_traces.csv": "below_traces.csv: row 0: 'Fe1e-15Ni1' is no formula: Fe",
    "own/tables/hull/bool_amount.json": "bool_amount.json#3: entry 'nacl': \"{'Na': True, 'Cl",
    "own/tables/hull/bool_energy.csv": "bool_energy.csv: formation_energy_per_atom of row 0 is no",
    "own/tables/hull/brackets.csv": [
        ("row-0", "CoH18(N2Cl)3", -5.2194, None),
        ("row-1", "K4Fe(CN)6", -7.459, None),
    ],
    "own/tables/hull/broken_structure.json": "broken_structure.json#3: entry 'nacl': composition",
    "own/tables/hull/charged.csv": "charged.csv: row 0: 'SO4--' is no formula: it has a charge",
    "own/tables/hull/comma_sites.csv": "comma_sites.csv: row 0: '(Fe,Mn)2O3' is no formula: it ha",
    "own/tables/hull/cut_short.jsonl.gz": "cut_short.jsonl.gz is damaged, cut short or not gzip:",
    "own/tables/hull/deuterium_site.json": "deuterium_site.json#3: entry 'nacl': \"{'D': 1}\" is",
    "own/tables/hull/dummy_site.json": "dummy_site.json#3: entry 'nacl': \"{'X': 1}\" is no comp",
    "own/tables/hull/empty_formula.csv": "empty_formula.csv: row 0: no formula: found ''",
    "own/tables/hull/empty_sites.json": "empty_sites.json#3: entry 'nacl': composition NaCl but i",
    "own/tables/hull/full_width.csv": "full_width.csv: formation_energy_per_atom of row 0 is not",
    "own/tables/hull/gga_id.csv": [("mp-22862-GGA", "NaCl", -3.6855, None)],
    "own/tables/hull/half_site.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "Na0.5Cl1", -4.9333, None),
    ],
    "own/tables/hull/heavy_water.csv": "heavy_water.csv: row 1: 'D2O' is no formula: D is an isot",
    "own/tables/hull/hexadecimal.csv": "hexadecimal.csv: formation_energy_per_atom of row 0 is no",
    "own/tables/hull/hse_id.json": "hse_id.json: 1 of 3 entries are not on the 'mp2020-corrected'",
    "own/tables/hull/huge_amounts.csv": [("row-0", "NaCl", -3.6855, None)],
    "own/tables/hull/hydrate_dot.csv": "hydrate_dot.csv: row 1: 'MgCl2.6H2O' is no formula: 2.6 m",
    "own/tables/hull/hydrates.csv": [
        ("row-0", "CuH10SO9", -5.2278, None),
        ("row-1", "CuH10SO9", -5.2278, None),
        ("row-2", "CuH10SO9", -5.2278, None),
        ("row-3", "Ca1H1S1O4.5", -5.4393, None),
        ("row-4", "CaH2SO5", -5.3845, None),
    ],
    "own/tables/hull/hydrates_q.csv": [
        ("row-0", "CuH10SO9", -5.2278, None),
        ("row-1", "CuH10SO9", -5.2278, None),
        ("row-2", "CuH10SO9", -5.2278, None),
    ],
    "own/tables/hull/ids.csv": [
        ("NA", "NaCl", -3.6855, None),
        ("null", "KCl", -3.6795, None),
        ("None", "LiCl", -3.8787, None),
        ("007", "CsCl", -3.572, None),
        ("1.0", "RbCl", -3.6145, None),
        ("row-5", "LiF", -5.0102, None),
    ],
    "own/tables/hull/infinite_amount.csv": "infinite_amount.csv: row 0: 'Na1e999Cl' is no formula",
    "own/tables/hull/ion.csv": "ion.csv: row 0: 'Na+' is no formula: it has a charge",
    "own/tables/hull/ion_elements.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -3.7, "NaCl"),
    ],
    "own/tables/hull/larger_cell.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -1.85, "NaCl"),
    ],
    "own/tables/hull/leading_dot.csv": [("row-0", "NaCl", -2.0855, None)],
    "own/tables/hull/lower.csv": "lower.csv: row 0: 'nacl' is no formula: cannot read 'nacl'",
    "own/tables/hull/none_word.csv": "none_word.csv: row 0: 'None' is no formula: 'None' is no el",
    "own/tables/hull/opt_assemblies.jsonl": [("opt_assemblies", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_attached.jsonl": [("opt_attached", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_bulk.jsonl": [("opt_bulk", "NaCl", -3.5855, "NaCl")],
    "own/tables/hull/opt_deuterium.jsonl": "opt_deuterium.jsonl#2: structure 'opt_deuterium': 'DL",
    "own/tables/hull/opt_disorder.jsonl": [("opt_disorder", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_implicit.jsonl": [("opt_implicit", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_mismatch.jsonl": "opt_mismatch.jsonl#2: structure 'opt_mismatch': compos",
    "own/tables/hull/opt_mixed.jsonl": [("opt_mixed", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_molecule.jsonl": [("opt_molecule", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_no_formula.jsonl": "opt_no_formula.jsonl#2: structure 'opt_no_formula':",
    "own/tables/hull/opt_r2scan.jsonl": "opt_r2scan.jsonl: 'mp-22862-r2SCAN' is named as r2SCAN,",
    "own/tables/hull/opt_vacancy_share.jsonl": [("opt_vacancy_share", "NaCl", -3.5855, None)],
    "own/tables/hull/opt_wire.jsonl": [("opt_wire", "NaCl", -3.5855, None)],
    "own/tables/hull/oxide_dot.csv": "oxide_dot.csv: row 0: 'Al2O3.2SiO2' is no formula: 3.2 may",
    "own/tables/hull/pbesol.json": "pbesol.json: 1 of 3 entries are not on the 'mp2020-corrected'",
    "own/tables/hull/r2scan_id.csv": "r2scan_id.csv: 'mp-22862-r2SCAN' is named as r2SCAN, which",
    "own/tables/hull/range.csv": "range.csv: row 0: 'Li1-xCoO2' is no formula: cannot read '-xCoO",
    "own/tables/hull/ratio_mismatch.json": "ratio_mismatch.json#3: entry 'nacl': composition Na2C",
    "own/tables/hull/roman.csv": "roman.csv: row 0: 'Fe(III)2O3' is no formula: a Roman numeral c",
    "own/tables/hull/run_type_lower.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -3.7, None),
    ],
    "own/tables/hull/scan_id.json": "scan_id.json: 1 of 3 entries are not on the 'mp2020-correcte",
    "own/tables/hull/short_row.csv": "short_row.csv: row 1 has 1 values for 2 columns: 'KCl'; put",
    "own/tables/hull/slab.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -3.7, None),
    ],
    "own/tables/hull/spaces.csv": [("row-0", "NaCl", -3.6855, None)],
    "own/tables/hull/spins.json": [
        ("Na", "Na", -1.3, None),
        ("Cl2", "Cl2", -1.8, None),
        ("nacl", "NaCl", -3.7, "NaCl"),
    ],
    "own/tables/hull/subscripts.csv": [
        ("row-0", "Fe2O3", -7.956, None),
        ("row-1", "Li0.5Co1O2", -6.5303, None),
    ],
    "own/tables/hull/text_amount.json": "text_amount.json#3: entry 'nacl': \"{'Na': '1', 'Cl",
    "own/tables/hull/traces.csv": [
        ("row-0", "Ni1Fe1e-09", -5.7801, None),
        ("row-1", "Cr1e-06Ni1", -5.7901, None),
    ],
    "own/tables/hull/underscore.csv": "underscore.csv: formation_energy_per_atom of row 0 is not",
    "own/tables/hull/unquoted_comma.csv": "unquoted_comma.csv: row 0 has 3 values for 2 columns:",
    "own/tables/hull/upper.csv": "upper.csv: row 0: 'NACL' is no formula: 'A' is no element; symb",
    "own/tables/hull/utf16.csv": [("row-0", "NaCl", -3.6855, None)],
    "own/tables/hull/vacancy.csv": "vacancy.csv: row 0: 'Va0.5NaCl' is no formula: 'Va' is no ele",
    "own/tables/hull/word_energy.csv": "word_energy.csv: formation_energy_per_atom of row 0 is no",
    "own/tables/hull/word_nan.csv": "word_nan.csv: row 0: 'nan' is no formula: cannot read 'nan'",
    "own/tables/hull/zipped.csv.gz": [("row-0", "NaCl", -3.6855, None)],
}

FOLDER = {
    "odd/folder/.hidden.cif": False,
    "odd/folder/._mac.cif": False,
    "odd/folder/._real.cif": False,
    "odd/folder/UP.CIF": True,
    "odd/folder/sub/deep.cif": False,
    "odd/folder/z.cif.gz": True,
}

EXPECTED = {*INPUTS, *KNOWN, *ENTRIES, *FOLDER, "own/tables/hull/hydrates_q.csv"}


@pytest.fixture(scope="module")
def reader() -> Iterator[CifReader]:
    with CifReader() as reader:
        yield reader


def _rows(path: Path, reader: CifReader) -> list[str]:
    found = []
    for item in read_inputs(path):
        crystal = parse_raw(item.raw, item.format, reader)
        if isinstance(crystal, Flaw):
            found.append(f"{crystal.reason.value}: {crystal.detail}")
        else:
            found.append(f"{crystal.formula}/{crystal.n_atoms}")
    return found


@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")  # of helium
@pytest.mark.parametrize("name", INPUTS)
def test_structures_are_read_or_get_a_reason(name: str, reader: CifReader) -> None:
    expected = INPUTS[name]
    if isinstance(expected, str):
        with pytest.raises(InputError) as refused:
            _rows(FILES / name, reader)
        assert expected in str(refused.value)
        return
    found = _rows(FILES / name, reader)
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", KNOWN)
def test_known_phases_keep_their_ids(name: str) -> None:
    expected = KNOWN[name]
    if isinstance(expected, str):
        with pytest.raises(InputError) as refused:
            read_known(FILES / name)
        assert expected in str(refused.value)
        return
    assert [(name, crystal.formula) for name, crystal in read_known(FILES / name)] == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_are_read_or_refused_whole(name: str) -> None:
    expected = ENTRIES[name]
    if isinstance(expected, str):
        with pytest.raises(InputError) as refused:
            read_entries(FILES / name)
        assert expected in str(refused.value)
        return
    found = [
        (p.phase_id, p.formula, round(p.energy_ev_per_atom, 4), p.crystal and p.crystal.formula)
        for p in read_entries(FILES / name).phases
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("asked", "reference", "heights"),
    [
        ("hull/nan_q.csv", "hull/nan_ref.csv", [1 / 15, 0.05 + 0.25 / 3]),
        ("hull/gp_q.csv", "hull/gp_ref.csv", [0.0, 0.0, 0.0, 0.0]),
        ("hull/unary_q.csv", "hull/unary_ref.csv", [0.05, -0.05]),
        ("own/tables/hull/hydrates_q.csv", "hull/hyd_ref.csv", [-0.0214, -0.0214, -0.0214]),
    ],
)
def test_heights_of_tables(asked: str, reference: str, heights: list[float]) -> None:
    found = judge_entries(read_entries(FILES / asked), read_file(FILES / reference))["results"]
    assert [row["e_above_hull_ev_per_atom"] for row in found] == pytest.approx(heights, abs=1e-4)


def test_a_folder_leaves_hidden_files_out_and_names_them(reader: CifReader) -> None:
    folder = FILES / "odd" / "folder"
    read = {f"odd/folder/{path.name}" for path in structure_files(folder)}
    assert read == {name for name, wanted in FOLDER.items() if wanted}
    assert _rows(folder, reader) == ["NaCl/8", "NaCl/8"]
    assert skipped_note(folder) == "folder: not read: ._mac.cif, ._real.cif, .hidden.cif, sub"


def test_a_text_that_is_too_large_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = (FILES / "files" / "t_ok.jsonl").read_text()
    with path.open("w") as file:
        file.write(row + '{"cif": "' + "x" * 17_000_000 + '"}\n' + row)
    first, long, last = (parse_raw(item.raw, item.format) for item in read_inputs(path))
    assert isinstance(long, Flaw)
    assert long.reason == "too_large"
    assert not isinstance(first, Flaw)
    assert not isinstance(last, Flaw)


@pytest.mark.parametrize("kind", ["long text", "many values", "repeated text"])
def test_a_parquet_of_kilobytes_stays_small(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    zeros = pa.ListArray.from_arrays(pa.array([0, 10**7], pa.int32()), pa.array(np.zeros(10**7)))
    repeated = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2000, pa.int32()), pa.array(["x" * 11_000_000])
    )
    columns = {
        "long text": {"cif": pa.array(["x" * 300_000_000])},
        "many values": dict.fromkeys(("lengths", "angles", "species", "coords"), zeros),
        "repeated text": {"cif": repeated},
    }[kind]
    pq.write_table(pa.table(columns), path, compression="zstd")
    assert path.stat().st_size < 1_000_000
    if kind == "repeated text":
        flaws = [parse_raw(item.raw, item.format) for item in read_inputs(path)]
        assert {f.reason.value for f in flaws if isinstance(f, Flaw)} == {"too_large"}
        assert len(flaws) == 2000
        return
    with pytest.raises(InputError, match="smaller row groups"):
        list(read_inputs(path))


def test_a_large_document_is_refused_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 101_000_000}]))
    with pytest.raises(InputError, match="JSON Lines"):
        read_inputs(path)
