"""CIFs are read as what they state of themselves, or refused with both numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gemmi
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hullward.models.crystal import Crystal, lattice_matrix, lattice_parameters
from hullward.models.errors import InputError
from hullward.tools.crystal import nearest_pairs, space_group
from hullward.tools.crystal.files import CifReader, difference, parse_raw, read_inputs, read_known
from hullward.tools.crystal.files.cif_block import RefusedError
from hullward.tools.crystal.files.cif_crystal import read_block
from hullward.tools.records import Flaw, Reason

FILES = Path(__file__).parent / "files"

Read = tuple[
    str, int, int, float
]  # atoms of the cell, their number, space group, shortest distance in Å
Refused = tuple[Reason, str]  # and a part of the detail

SALT: Read = ("Na4Cl4", 8, 225, 2.82)

EXPECTED: dict[str, Read | Refused | list[Read]] = {
    "cif/anatase_o1_hm.cif": ("Ti4O8", 12, 141, 1.934),
    "cif/anatase_o1_sum.cif": ("Ti4O8", 12, 141, 1.934),
    "cif/anatase_o2_hm.cif": ("Ti4O8", 12, 141, 1.934),
    "cif/aniso.cif": SALT,
    "cif/bi2te3_3dig.cif": ("Mo2S4", 6, 194, 2.418),
    "cif/cartn.cif": (Reason.BAD_CIF, "_atom_site_fract_x is not given for each site"),
    "cif/cif2.cif": SALT,
    "cif/co_label_trap.cif": (Reason.UNKNOWN_ELEMENT, "'CO1' is no element"),
    "cif/ddlm_dots.cif": SALT,
    "cif/deut.cif": (Reason.UNKNOWN_ELEMENT, "'D' is no element"),
    "cif/disorder_group.cif": (Reason.DISORDERED, "alternative sites: disorder groups 1, 2"),
    "cif/global_block.cif": SALT,
    "cif/hex_hm_H.cif": ("Li3Co3O6", 12, 166, 1.924),
    "cif/hex_hm_only.cif": ("Li3Co3O6", 12, 166, 1.924),
    "cif/hex_it_only.cif": ("Li3Co3O6", 12, 166, 1.924),
    "cif/hydrogen_implicit.cif": (Reason.BAD_CIF, "hydrogen atoms without positions"),
    "cif/label_vs_type.cif": SALT,
    "cif/mcif.cif": (
        Reason.BAD_CIF,
        "magnetic or modulated CIF: give the nuclear, unmodulated structure",
    ),
    "cif/mos2_2dig.cif": ("Mo2S4", 6, 194, 2.426),
    "cif/mos2_3dig.cif": ("Mo2S4", 6, 194, 2.418),
    "cif/mos2_4dig.cif": ("Mo2S4", 6, 194, 2.418),
    "cif/nacl_bom.cif": SALT,
    "cif/nacl_comma.cif": (Reason.BAD_CIF, "_cell_length_a is '5,64', not a number"),
    "cif/nacl_cr_only.cif": SALT,
    "cif/nacl_crlf.cif": SALT,
    "cif/nacl_curly.cif": (Reason.BAD_CIF, "not CIF: 'line 2: parse error'"),
    "cif/nacl_dup_atom.cif": (Reason.BAD_CIF, "Na1 and Na2 occupy one place: occupancy 2"),
    "cif/nacl_dup_labels.cif": SALT,
    "cif/nacl_esd.cif": SALT,
    "cif/nacl_neg.cif": SALT,
    "cif/nacl_no_cell.cif": (Reason.BAD_CIF, "_cell_angle_gamma not given"),
    "cif/nacl_no_label.cif": (Reason.NO_SITES, "no loop of atom sites with _atom_site_label"),
    "cif/nacl_pos_question.cif": (Reason.BAD_CIF, "_atom_site_fract_x is '?', not a number"),
    "cif/nacl_question.cif": SALT,
    "cif/nacl_same_site_two_el.cif": (Reason.BAD_CIF, "Na1 and K1 occupy one place: occupancy 2"),
    "cif/nacl_type_ox.cif": SALT,
    "cif/nacl_type_ox2.cif": SALT,
    "cif/nacl_type_ox3.cif": SALT,
    "cif/nacl_uminus.cif": (Reason.BAD_CIF, "_atom_site_fract_x is '?0.5', not a number"),
    "cif/nacl_upper_label.cif": (Reason.UNKNOWN_ELEMENT, "'NA1' is no element"),
    "cif/nacl_upper_tags.cif": SALT,
    "cif/nacl_upper_type.cif": (Reason.UNKNOWN_ELEMENT, "'NA' is no element"),
    "cif/nacl_utf16.cif": SALT,
    "cif/negative_cell.cif": (
        Reason.IMPOSSIBLE_CELL,
        "lengths must be positive, got (-5.64, 5.64, 5.64)",
    ),
    "cif/occ_over.cif": (Reason.DISORDERED, "occupancy '0.6'"),
    "cif/ops_conflict_name.cif": (
        Reason.BAD_CIF,
        "operators listed: 1, of F m -3 m: 192; formula, units and multiplicities do not decide",
    ),
    "cif/ops_identity_second.cif": ("Ti1O2", 3, 2, 2.046),
    "cif/ops_loop_single_unlooped.cif": ("Ti1O2", 3, 2, 2.046),
    "cif/ops_missing_identity.cif": (
        Reason.BAD_CIF,
        "the identity is missing from the list of operators, 1 long",
    ),
    "cif/rhomb_hall.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif/rhomb_hm_R.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif/rhomb_hm_Rnospace.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif/rhomb_hm_only.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif/rhomb_it_only.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif/space_group_1_2.cif": SALT,
    "cif/spinel_o1_1.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o1_S.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o1_hm_only.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o1_it.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o2_2.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o2_Z.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/spinel_o2_hm_only.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif/two_blocks.cif": [SALT, SALT],
    "cif/vacancy_occ0.cif": (Reason.DISORDERED, "occupancy '0'"),
    "cif/vacant_dummy.cif": (Reason.UNKNOWN_ELEMENT, "'X' is no element"),
    "cif/water_label.cif": (Reason.UNKNOWN_ELEMENT, "'OW1' is no element"),
    "cif/wrapped_semicolon.cif": SALT,
    "cif/z_formula_mismatch.cif": (
        Reason.BAD_CIF,
        "the formula is Na2 Cl1, the sites give Na4 Cl4",
    ),
    "cif/zro2_p21a_name.cif": ("Zr4O8", 12, 14, 1.034),
    "cif/zro2_p21c.cif": ("Zr4O8", 12, 14, 2.051),
    "cif/zro2_p21n_name.cif": ("Zr4O8", 12, 14, 1.399),
    "cif2/carriage_quotes.cif": SALT,
    "cif2/cu2o_o1.cif": ("Cu4O2", 6, 224, 1.849),
    "cif2/cu2o_o2.cif": ("Cu4O2", 6, 224, 1.849),
    "cif2/fraction_coords.cif": (Reason.BAD_CIF, "_atom_site_fract_x is '1/2', not a number"),
    "cif2/hex_hm_P-3m1_RS.cif": ("Ca2C2O6", 10, 167, 1.28),
    "cif2/hydrate_no_H.cif": (Reason.BAD_CIF, "H is stated to be in the crystal, but has no sites"),
    "cif2/ops_identity_only_Fm3m.cif": SALT,
    "cif2/ops_missing_identity_sum.cif": (
        Reason.BAD_CIF,
        "the identity is missing from the list of operators, 1 long",
    ),
    "cif2/pbo_o1.cif": ("Pb2O2", 4, 129, 2.311),
    "cif2/rhomb_sum.cif": ("Li1Co1O2", 4, 166, 1.923),
    "cif2/rutile_dot_all.cif": ("Ti2O4", 6, 136, 1.948),
    "cif2/rutile_dot_one.cif": ("Ti2O4", 6, 136, 1.948),
    "cif2/rutile_q_all.cif": ("Ti2O4", 6, 136, 1.948),
    "cif2/rutile_q_one.cif": ("Ti2O4", 6, 136, 1.948),
    "cif2/rutile_sum_Z.cif": (Reason.BAD_CIF, "the formula is Ti2 O3, the sites give Ti2 O4"),
    "cif2/spinel_o2_sum.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "cif2/tab_values.cif": SALT,
    "cif2/tise2_3dig.cif": ("Ti1Se2", 3, 164, 2.555),
    "cif2/tise2_3dig_ops.cif": ("Ti1Se2", 3, 164, 2.555),
    "cif2/underscore_hm.cif": SALT,
    "cif3/crystallm_raw_rutile.cif": ("Ti2O4", 6, 136, 1.948),
    "cif3/crystallm_raw_srtio3.cif": ("Sr1Ti1O3", 5, 221, 1.95),
    "cif3/p1_truth.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/ag2o_in_cell.cif": ("Ag4O2", 6, 224, 2.048),
    "own/cif/ag2o_multiplicity.cif": ("Ag4O2", 6, 224, 2.048),
    "own/cif/ag2o_site_order.cif": ("Ag4O2", 6, 224, 2.048),
    "own/cif/ag2o_undecided.cif": (Reason.BAD_CIF, "do not decide"),
    "own/cif/alb2_cut_digits.cif": ("Al1B2", 3, 191, 1.735),
    "own/cif/all_capitals.cif": SALT,
    "own/cif/attached_hydrogens.cif": (Reason.BAD_CIF, "hydrogen atoms without positions"),
    "own/cif/authors_misquoted.cif": SALT,
    "own/cif/bi_decimal_operators.cif": ("Bi6", 6, 166, 3.071),
    "own/cif/bi_rhomb_name.cif": ("Bi2", 2, 166, 3.071),
    "own/cif/block_name_with_blanks.cif": SALT,
    "own/cif/bom_crlf.cif": SALT,
    "own/cif/brucite_h_type_listed.cif": (
        Reason.BAD_CIF,
        "H is stated to be in the crystal, but has no sites",
    ),
    "own/cif/brucite_no_h.cif": (
        Reason.BAD_CIF,
        "H is stated to be in the crystal, but has no sites",
    ),
    "own/cif/brucite_with_h.cif": ("Mg1H2O2", 5, 164, 0.919),
    "own/cif/calcite_hex_name.cif": ("Ca6C6O18", 30, 167, 1.282),
    "own/cif/calcite_rhomb_number.cif": ("Ca2C2O6", 10, 167, 1.28),
    "own/cif/cartesian_only.cif": (Reason.BAD_CIF, "_atom_site_fract_x is not given"),
    "own/cif/cdi2_2_digits.cif": ("Cd1I2", 3, 164, 2.986),
    "own/cif/chevrel_rhomb.cif": ("Mo6Pb1S8", 15, 148, 2.364),
    "own/cif/comments_in_loops.cif": SALT,
    "own/cif/coordinate_esd.cif": ("Zn2O2", 4, 186, 1.974),
    "own/cif/coordinate_of_fortran.cif": (
        Reason.BAD_CIF,
        "_atom_site_fract_x is '5.0D-1', not a number",
    ),
    "own/cif/coordinate_of_stars.cif": (Reason.BAD_CIF, "not a number"),
    "own/cif/coordinate_one_third.cif": (Reason.BAD_CIF, "'1/3', not a number"),
    "own/cif/cubic_name_tetragonal_cell.cif": (
        Reason.BAD_CIF,
        "does not have the symmetry of F m -3 m",
    ),
    "own/cif/cuo_c2c.cif": ("Cu4O4", 8, 15, 1.951),
    "own/cif/cuo_hall_only.cif": ("Cu4O4", 8, 15, 1.951),
    "own/cif/deuterium_type.cif": (Reason.UNKNOWN_ELEMENT, "'D' is no element"),
    "own/cif/disorder_about_a_special_position.cif": (Reason.DISORDERED, "disorder groups -1"),
    "own/cif/dotted_operators.cif": ("Ti1O2", 3, 2, 2.046),
    "own/cif/dummy_flag.cif": (Reason.BAD_CIF, "dummy"),
    "own/cif/equivalent_site_listed_twice.cif": (Reason.BAD_CIF, "Na1 and Na2 occupy one place"),
    "own/cif/fese_o1_sum.cif": ("Fe2Se2", 4, 129, 2.393),
    "own/cif/fese_o2_code.cif": ("Fe2Se2", 4, 129, 2.393),
    "own/cif/fese_o2_letter.cif": ("Fe2Se2", 4, 129, 2.393),
    "own/cif/fluorite_centring_lost.cif": (
        Reason.BAD_CIF,
        "operators listed: 48, of F m -3 m: 192",
    ),
    "own/cif/fluorite_half_of_operators.cif": (
        Reason.BAD_CIF,
        "operators listed: 96, of F m -3 m: 192",
    ),
    "own/cif/fluorite_half_unproved.cif": (
        Reason.BAD_CIF,
        "operators listed: 96, of F m -3 m: 192",
    ),
    "own/cif/full_cell_and_all_operators.cif": (Reason.BAD_CIF, "occupy one place"),
    "own/cif/full_cell_under_a_name.cif": SALT,
    "own/cif/gdfeo3_pbnm.cif": ("Gd4Fe4O12", 20, 62, 2.0),
    "own/cif/gdfeo3_pnma.cif": ("Gd4Fe4O12", 20, 62, 2.0),
    "own/cif/gete_rhomb_3m.cif": ("Ge1Te1", 2, 160, 2.813),
    "own/cif/global_block_after.cif": SALT,
    "own/cif/graphite_3_digits.cif": ("C4", 4, 194, 1.421),
    "own/cif/hall_against_name.cif": (Reason.BAD_CIF, "is of group 12"),
    "own/cif/hex_cell_marked_rhomb.cif": (Reason.BAD_CIF, "does not have the symmetry of R -3 m:R"),
    "own/cif/hg_rhomb_number.cif": ("Hg1", 1, 166, 3.005),
    "own/cif/html_instead.cif": (Reason.BAD_CIF, "not CIF"),
    "own/cif/identity_lost.cif": (Reason.BAD_CIF, "the identity is missing"),
    "own/cif/identity_only_fluorite_multiplicity.cif": ("Ca4F8", 12, 225, 2.366),
    "own/cif/identity_only_no_claims.cif": (
        Reason.BAD_CIF,
        "operators listed: 1, of P 63/m m c: 24",
    ),
    "own/cif/identity_only_misfit.cif": (
        Reason.BAD_CIF,
        "the cell does not have the symmetry of P m -3 m",
    ),
    "own/cif/identity_only_perovskite.cif": ("Sr1Ti1O3", 5, 221, 1.95),
    "own/cif/identity_only_spinel_o2.cif": ("Mg8Al16O32", 56, 227, 1.923),
    "own/cif/identity_only_wurtzite.cif": ("Zn2O2", 4, 186, 1.974),
    "own/cif/in_cell_wrong.cif": (Reason.BAD_CIF, "8 Cl are stated in the cell, the sites give 4"),
    "own/cif/la2o3_3_digits_ops.cif": ("La2O3", 5, 164, 2.369),
    "own/cif/laalo3_rhomb.cif": ("La2Al2O6", 10, 167, 1.9),
    "own/cif/labels_missing.cif": (Reason.NO_SITES, "no loop of atom sites with _atom_site_label"),
    "own/cif/latin_1_author.cif": SALT,
    "own/cif/magnetic_operators.cif": (Reason.BAD_CIF, "magnetic"),
    "own/cif/mgb2_3_digits.cif": ("Mg1B2", 3, 191, 1.782),
    "own/cif/modulated.cif": (Reason.BAD_CIF, "modulated"),
    "own/cif/nacl_multiplicity_wrong.cif": (
        Reason.BAD_CIF,
        "Cl1 has multiplicity 8, its images are 4",
    ),
    "own/cif/nacl_volume_rounded.cif": SALT,
    "own/cif/nacl_volume_wrong.cif": (Reason.BAD_CIF, "_cell_volume is 89.7"),
    "own/cif/nacl_z_3.cif": (Reason.BAD_CIF, "3 units of Cl Na are 6 atoms, the sites give 8"),
    "own/cif/nacl_z_alone.cif": (Reason.BAD_CIF, "3 formula units are stated, the sites give 4"),
    "own/cif/name_against_number.cif": (Reason.BAD_CIF, "is group 225, stated is 221"),
    "own/cif/nameless_block.cif": SALT,
    "own/cif/no_last_newline.cif": SALT,
    "own/cif/old_cubic_name.cif": SALT,
    "own/cif/one_disorder_group_is_order.cif": SALT,
    "own/cif/one_site_without_loop.cif": ("Al4", 4, 225, 2.864),
    "own/cif/operator_lost.cif": (Reason.BAD_CIF, "11 operators form no group"),
    "own/cif/operator_sign_lost.cif": (Reason.BAD_CIF, "form no group"),
    "own/cif/operator_twice.cif": ("Ti1O2", 3, 2, 2.046),
    "own/cif/operators_capital_decimal.cif": SALT,
    "own/cif/operators_factor_two.cif": (Reason.BAD_CIF, "is not a symmetry operator"),
    "own/cif/operators_of_a_subgroup.cif": (
        Reason.BAD_CIF,
        "operators listed: 16, of P m -3 m: 48",
    ),
    "own/cif/operators_of_another_group.cif": (
        Reason.BAD_CIF,
        "16 operators of group 128, but P 42/m n m is group 136",
    ),
    "own/cif/operators_shifted_origin.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/operators_with_ids.cif": ("Ti1O2", 3, 2, 2.046),
    "own/cif/operators_without_name.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/oxygen_pair_stays_two.cif": ("O2", 2, 47, 1.2),
    "own/cif/oxygen_whole_cell_sum.cif": ("O4", 4, 71, 1.2),
    "own/cif/phosphorus_cmce.cif": ("P8", 8, 64, 2.221),
    "own/cif/pyrochlore_o2_sum.cif": ("La16Zr16O56", 88, 227, 2.105),
    "own/cif/pyrochlore_o2_wrong_sum.cif": (Reason.BAD_CIF, "the formula is La2 O6 Zr2"),
    "own/cif/quartz_3_digits.cif": ("Si3O6", 9, 154, 1.607),
    "own/cif/quote_open.cif": (Reason.BAD_CIF, "unterminated"),
    "own/cif/rhomb_cell_hex_ops.cif": (
        Reason.BAD_CIF,
        "does not have the symmetry of the listed operators",
    ),
    "own/cif/rhomb_cell_marked_hex.cif": (Reason.BAD_CIF, "does not have the symmetry of R -3 m:H"),
    "own/cif/rhomb_ops.cif": ("Bi2", 2, 166, 3.071),
    "own/cif/rutile_dot_in_group.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/rutile_element_exchanged.cif": (Reason.BAD_CIF, "the formula is O2 Ti"),
    "own/cif/rutile_occupancy_099.cif": (Reason.DISORDERED, "occupancy '0.99'"),
    "own/cif/rutile_occupancy_esd.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/rutile_site_lost.cif": (Reason.BAD_CIF, "the formula is O2 Ti"),
    "own/cif/shared_site_dots.cif": (Reason.BAD_CIF, "Ni1 and Al1 occupy one place"),
    "own/cif/si_o1_units.cif": ("Si8", 8, 227, 2.352),
    "own/cif/si_o2_multiplicity.cif": ("Si8", 8, 227, 2.352),
    "own/cif/si_o2_units.cif": ("Si8", 8, 227, 2.352),
    "own/cif/split_pair_stays_two.cif": ("Fe2", 2, 47, 0.6),
    "own/cif/structural_formula_h.cif": (Reason.BAD_CIF, "H is stated"),
    "own/cif/structural_formula_x.cif": SALT,
    "own/cif/subscript_parentheses.cif": ("Ti2O4", 6, 136, 1.948),
    "own/cif/sum_placeholder.cif": SALT,
    "own/cif/tag_twice.cif": (Reason.BAD_CIF, "line 17 in data_x: duplicate tag _cell_length_a"),
    "own/cif/text_field_like_a_cif.cif": SALT,
    "own/cif/text_field_value.cif": SALT,
    "own/cif/tiocl_o2_sum.cif": ("Ti2Cl2O2", 6, 59, 1.966),
    "own/cif/tritium_type.cif": (Reason.UNKNOWN_ELEMENT, "'T' is no element"),
    "own/cif/two_groups_of_an_assembly.cif": (Reason.DISORDERED, "disorder groups 1, 2"),
    "own/cif/two_names_disagree.cif": (Reason.BAD_CIF, "stated is"),
    "own/cif/type_unknown_label_known.cif": SALT,
    "own/cif/unknown_group.cif": (Reason.BAD_CIF, "unknown space group"),
    "own/cif/unknown_name_known_number.cif": (Reason.BAD_CIF, "unknown space group"),
    "own/cif/utf_16_big_endian.cif": SALT,
    "own/cif/value_lost_in_loop.cif": (Reason.BAD_CIF, "line 9: Wrong number of values in loop"),
    "own/cif/values_on_other_lines.cif": SALT,
    "own/cif/water_as_atom.cif": (Reason.UNKNOWN_ELEMENT, "'Wat' is no element"),
    "own/cif/wc_3_digits.cif": ("W1C1", 2, 187, 2.197),
    "own/cif/wustite_sum.cif": (Reason.BAD_CIF, "the formula is Fe0.947 O"),
    "own/cif/zircon_o1_sum.cif": ("Zr4Si4O16", 24, 141, 1.624),
    "own/cif/zircon_o2_number.cif": ("Zr4Si4O16", 24, 141, 1.622),
    "own/cif/zircon_o2_sum.cif": ("Zr4Si4O16", 24, 141, 1.622),
    "own/cif/zno_3_digits.cif": ("Zn2O2", 4, 186, 1.974),
    "own/cif/zro2_axis_c.cif": ("Zr4O8", 12, 14, 2.051),
    "own/cif/zro2_p21n_setting.cif": ("Zr4O8", 12, 14, 2.051),
    "own/cif/zro2_short_name.cif": ("Zr4O8", 12, 14, 2.051),
    "own/cif/operators_listed_twice.cif": ("Ti1O2", 3, 2, 2.046),
    "own/cif/operators_of_another_setting.cif": (
        Reason.BAD_CIF,
        "the listed operators are not those of P 1 21/n 1, which fit",
    ),
    "own/cif/sloppy_name_right_operators.cif": ("Zr4O8", 12, 14, 2.051),
    "own/cif/two_lists_of_operators.cif": (
        Reason.BAD_CIF,
        "two lists of operators disagree, of 1 and 2",
    ),
    "own/cif/full_name.cif": ("Gd4Fe4O12", 20, 62, 2.0),
    "own/cif/full_name_marked.cif": ("Si8", 8, 227, 2.352),
    "own/cif/line_separator_in_text.cif": SALT,
    "own/cif/name_tag_misspelt.cif": (
        Reason.BAD_CIF,
        "the symmetry is stated only as '_symmetry_space_group_name_hm'",
    ),
    "own/cif/no_symmetry_stated.cif": ("Cs1Cl1", 2, 221, 3.568),
    "own/cif/no_symmetry_stated_wrong_sum.cif": (
        Reason.BAD_CIF,
        "4 units of Cl Na are 8 atoms, the sites give 2",
    ),
    "own/cif/schoenflies_only.cif": (
        Reason.BAD_CIF,
        "the symmetry is stated only as '_space_group_name_schoenflies'",
    ),
    "own/cif/identity_only_uranium.cif": (Reason.BAD_CIF, "operators listed: 1, of C m c m: 16"),
    "own/cif/origin_choice_in_words.cif": ("Si8", 8, 227, 2.352),
    "own/cif/rhombohedral_axes_in_words.cif": ("Pb1Mo6S8", 15, 148, 2.364),
}


@pytest.fixture(scope="module")
def reader() -> Iterator[CifReader]:
    with CifReader() as reader:
        yield reader


@pytest.mark.parametrize("name", EXPECTED)
def test_a_cif_is_read_right_or_refused(reader: CifReader, name: str) -> None:
    found = [parse_raw(item.raw, item.format, reader) for item in read_inputs(FILES / name)]
    expected = EXPECTED[name]
    for crystal, wanted in zip(
        found, expected if isinstance(expected, list) else [expected], strict=True
    ):
        if isinstance(wanted[0], Reason):
            assert isinstance(crystal, Flaw)
            assert crystal.reason is wanted[0]
            assert wanted[1] in crystal.detail
            assert len(crystal.detail) < 400
            continue
        assert isinstance(crystal, Crystal), crystal
        formula, n_atoms, group, shortest_a = wanted
        assert crystal.amounts == amounts(formula)
        assert crystal.n_atoms == n_atoms
        assert space_group(crystal, 0.01) == group
        assert nearest_pairs(crystal, 4.0)[2].min() == pytest.approx(shortest_a, abs=1e-3)


def amounts(formula: str) -> dict[str, float]:
    return {el: float(n) for el, n in re.findall(r"([A-Z][a-z]?)([0-9]+)", formula)}


def test_a_known_phase_that_contradicts_its_formula_is_refused(tmp_path: Path) -> None:
    """Also in the layout that is read without the sandbox."""
    text = (FILES / "cif3/p1_truth.cif").read_text().replace("data_Ti2 O4", "data_TiO2")
    for number, changed in enumerate((text, text.replace("'Ti2 O4'", "'Ti2 O3'"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.cif").write_text(changed)
    assert len(read_known(tmp_path / "0")) == 1
    with pytest.raises(InputError, match="Ti2 O3, the sites give Ti2 O4"):
        read_known(tmp_path / "1")


class Described(NamedTuple):
    """A crystal as a group, a cell and its asymmetric unit."""

    group: str
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[tuple[str, float, float, float], ...]


THIRD = 1 / 3
DESCRIBED = [
    Described("P 42/m n m", (4.594, 4.594, 2.959, 90, 90, 90),
              (("Ti", 0, 0, 0), ("O", 0.305, 0.305, 0))),
    Described("F d -3 m:2", (8.08, 8.08, 8.08, 90, 90, 90),
              (("Mg", 0.125, 0.125, 0.125), ("Al", 0.5, 0.5, 0.5), ("O", 0.2624, 0.2624, 0.2624))),
    Described("P 63 m c", (3.25, 3.25, 5.207, 90, 90, 120),
              (("Zn", THIRD, 2 * THIRD, 0), ("O", THIRD, 2 * THIRD, 0.382))),
    Described("P n m a", (5.611, 7.669, 5.349, 90, 90, 90),
              (("Gd", 0.0629, 0.25, 0.9844), ("Fe", 0, 0, 0.5),
               ("O", 0.467, 0.25, 0.1005), ("O", 0.3016, 0.0506, 0.6976))),
    Described("C 1 2/c 1", (4.684, 3.423, 5.129, 90, 99.54, 90),
              (("Cu", 0.25, 0.25, 0), ("O", 0, 0.4184, 0.25))),
    Described("P 1 21/c 1", (5.15, 5.21, 5.32, 90, 99.2, 90),
              (("Zr", 0.2754, 0.0395, 0.2083), ("O", 0.07, 0.3317, 0.3447),
               ("O", 0.4496, 0.7569, 0.4792))),
    Described("R -3 c:H", (4.99, 4.99, 17.06, 90, 90, 120),
              (("Ca", 0, 0, 0), ("C", 0, 0, 0.25), ("O", 0.257, 0, 0.25))),
    Described("P 32 2 1", (4.913, 4.913, 5.405, 90, 90, 120),
              (("Si", 0.47, 0, 2 * THIRD), ("O", 0.413, 0.267, 0.786))),
    Described("I 41/a m d:2", (6.607, 6.607, 5.982, 90, 90, 90),
              (("Zr", 0, 0.75, 0.125), ("Si", 0, 0.25, 0.375), ("O", 0, 0.0661, 0.1953))),
]  # fmt: skip


def operators_of(group: str) -> list[gemmi.Op]:
    found = gemmi.find_spacegroup_by_name(group)
    assert found is not None
    return list(found.operations())


def expanded(described: Described) -> Crystal:
    """The crystal of a description, computed without the reader."""
    species: list[str] = []
    coords: list[np.ndarray] = []
    for element, *xyz in described.sites:
        own: list[np.ndarray] = []
        for op in operators_of(described.group):
            image = np.array(op.apply_to_xyz(xyz)) % 1.0
            apart = np.array(own).reshape(-1, 3) - image
            if not (np.abs(apart - np.round(apart)) < 1e-6).all(axis=1).any():
                own.append(image)
        species += [element] * len(own)
        coords += own
    cell = described.cell
    return Crystal.from_parameters(cell[:3], cell[3:], species, coords)


def as_cif(
    described: Described, change: gemmi.Op, *, digits: int, symmetry: str, sums: bool
) -> str:
    """A CIF of a description after a change of axes and origin, x' = change(x)."""
    crystal = expanded(described)
    back = change.inverse()
    q = np.array(change.rot) / gemmi.Op.DEN
    matrix = np.linalg.inv(q).T @ lattice_matrix(described.cell[:3], described.cell[3:])
    lengths, angles = lattice_parameters(matrix)
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", symmetry]
    if symmetry == "operators":
        moved = {(change * op * back).wrap().triplet() for op in operators_of(described.group)}
        assume(not any("2" in term for op in moved for term in re.findall("[0-9][*xyz]", op)))
        lines[1:] = ["loop_", "_space_group_symop_operation_xyz", *(f"'{op}'" for op in moved)]
    lines += [f"_cell_{n} {v:.6f}" for n, v in zip(names, (*lengths, *angles), strict=True)]
    if sums:
        content = np.linalg.det(np.linalg.inv(q)) * crystal.n_atoms
        reduced = crystal.composition.reduced_composition
        told = " ".join(f"{el}{n:g}" for el, n in reduced.as_dict().items())
        lines.append(f"_chemical_formula_sum '{told}'")
        lines.append(f"_cell_formula_units_Z {abs(content) / reduced.num_atoms:.0f}")
    lines += ["loop_", *(f"_atom_site_{tag}" for tag in ("label", "fract_x", "fract_y", "fract_z"))]
    for i, (element, *xyz) in enumerate(described.sites):
        x, y, z = change.apply_to_xyz(xyz)
        lines.append(f"{element}{i} {x:.{digits}f} {y:.{digits}f} {z:.{digits}f}")
    return "\n".join(lines) + "\n"


def crystal_of(text: str) -> Crystal:
    read = read_block(text, 500, 192)
    return Crystal.from_arrays(read["lattice"], read["species"], read["coords"])


AXES = ["x,y,z", "y,z,x", "z,x,y", "-x,-y,-z", "y,x,-z", "-z,-y,-x", "x,-y,-z", "x,y,z+x"]


@settings(max_examples=60)
@given(
    described=st.sampled_from(DESCRIBED),
    axes=st.sampled_from(AXES),
    origin=st.tuples(*[st.integers(0, 23)] * 3),
    digits=st.integers(4, 8),
    sums=st.booleans(),
)
def test_any_axes_and_origin_read_back(
    described: Described,
    axes: str,
    origin: tuple[int, int, int],
    digits: int,
    sums: bool,
) -> None:
    change = gemmi.Op(axes)
    change.tran = list(origin)
    text = as_cif(described, change, digits=digits, symmetry="operators", sums=sums)
    assert difference(expanded(described), crystal_of(text)) is None


SETTINGS = [
    (described, other)
    for described in DESCRIBED
    for other in gemmi.spacegroup_table()
    if other.number == gemmi.find_spacegroup_by_name(described.group).number
]


@pytest.mark.parametrize(
    ("described", "other"), SETTINGS, ids=[f"{d.group} as {o.xhm()}" for d, o in SETTINGS]
)
def test_every_setting_of_a_group_is_read_by_its_name(
    described: Described, other: gemmi.SpaceGroup
) -> None:
    own = gemmi.find_spacegroup_by_name(described.group)
    assert own is not None
    change = other.basisop * own.basisop.inverse()
    for name in {other.xhm(), other.hm}:  # without a mark, sum and units decide
        symmetry = f"_space_group_name_H-M_alt '{name}'"
        text = as_cif(described, change, digits=6, symmetry=symmetry, sums=True)
        assert difference(expanded(described), crystal_of(text)) is None
    symmetry = f"_space_group_name_Hall '{other.hall}'"
    text = as_cif(described, change, digits=6, symmetry=symmetry, sums=False)
    assert difference(expanded(described), crystal_of(text)) is None


@settings(max_examples=60)
@given(
    described=st.sampled_from(DESCRIBED),
    which=st.integers(0, 2),
    amount=st.integers(1, 9),
    units=st.integers(1, 12),
)
def test_a_damaged_sum_or_number_of_units_is_refused(
    described: Described, which: int, amount: int, units: int
) -> None:
    text = as_cif(described, gemmi.Op(), digits=6, symmetry="operators", sums=True)
    told = re.search(r"sum '(.*)'\n_cell_formula_units_Z (\d+)", text)
    assert told is not None
    terms = told[1].split()
    i = which % len(terms)
    element = re.sub("[0-9]", "", terms[i])
    terms[i] = f"{element}{amount}"
    crystal = crystal_of(text)
    changed = text.replace(told[0], f"sum '{' '.join(terms)}'\n_cell_formula_units_Z {units}")
    atoms = amounts(" ".join(terms))
    whole = {el: n * units for el, n in atoms.items()}
    if whole == crystal.amounts or atoms == crystal.amounts:
        assert crystal_of(changed).amounts == crystal.amounts
    else:
        with pytest.raises(RefusedError, match=r"the sites give"):
            read_block(changed, 500, 192)
