"""Real CIF: good files are read, hostile ones end as data."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import PreflightError
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.files import CifReader
from hullward.tools.crystal.files.cif import CifLimits, read_cif, split_blocks
from hullward.tools.crystal.files.cif_worker import _forbid
from hullward.tools.records import Flaw, Reason

HEAD = """data_{name}
_cell_length_a   5.64
_cell_length_b   5.64
_cell_length_c   5.64
_cell_angle_alpha   90
_cell_angle_beta   90
_cell_angle_gamma   90
"""
SITES = """loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
 Na  Na1  0.0  0.0  0.0  1
 Cl  Cl1  0.5  0.5  0.5  1
"""
OPERATORS = "loop_\n _symmetry_equiv_pos_as_xyz\n"
CENTRED = OPERATORS + " 'x,y,z'\n 'x,y+1/2,z+1/2'\n 'x+1/2,y,z+1/2'\n 'x+1/2,y+1/2,z'\n"
SALT = HEAD.format(name="NaCl") + CENTRED + SITES
PRIMITIVE = HEAD.format(name="CsClLike") + SITES


@pytest.fixture(scope="module")
def reader() -> Iterator[CifReader]:
    with CifReader() as reader:
        yield reader


def test_symmetry_is_applied(reader: CifReader) -> None:
    (crystal,) = reader.read(SALT)  # type: ignore[misc]
    assert isinstance(crystal, Crystal)
    assert crystal.formula == "NaCl"
    assert crystal.n_atoms == 8
    assert crystal.volume_a3 == pytest.approx(5.64**3)


def test_a_structure_survives_pymatgens_own_cif(reader: CifReader) -> None:
    from pymatgen.io.cif import CifWriter

    species, coords = ["Ga", "Te"], [[0.3712, 0.85, 0.89], [0.03, 0.1933, 0.391]]
    crystal = Crystal.from_parameters((4.2, 5.1, 6.7), (80, 95, 118), species, coords)
    (found,) = reader.read(str(CifWriter(crystal.to_structure())))  # type: ignore[misc]
    assert found.species == crystal.species
    assert np.allclose(found.parameters, crystal.parameters, atol=1e-6)
    assert np.allclose(found.frac_coords, crystal.frac_coords, atol=1e-6)


def test_blocks_are_read_in_order_even_under_one_name(reader: CifReader) -> None:
    heading = "# by hand\ndata_global\n_journal ';'\n;\ndata_not a block\n;\n"
    assert split_blocks(heading + SALT + PRIMITIVE) == [SALT, PRIMITIVE]
    crystals = reader.read(heading + SALT + PRIMITIVE.replace("CsClLike", "NaCl"))
    assert [crystal.n_atoms for crystal in crystals] == [8, 2]  # type: ignore[union-attr]


def test_uncertainties_charges_and_unstated_occupancies_are_read(reader: CifReader) -> None:
    text = SALT.replace("5.64\n", "5.6402(3)\n", 1).replace(" Na  Na1", " Na1+ Na1")
    assert isinstance(reader.read(text.replace("0.5  1\n", "0.5  ?\n")), list)


def many_operators(count: int) -> str:
    lines = "".join(f" 'x+{i}/{count},y,z'\n" for i in range(count))
    return HEAD.format(name="bomb") + OPERATORS + lines + SITES


def many_sites(count: int) -> str:
    return PRIMITIVE + "".join(f" Na Na{i} {i / count:.5f} 0.25 0.25 1\n" for i in range(count))


def edited(old: str, new: str, text: str = SALT) -> str:
    assert old in text
    return text.replace(old, new, 1)


NEWLINES, BLANKS, DIGITS = ("\n" * 900_000, " " * 900_000, "9" * 900_000)
HOSTILE = [
    ("", Reason.EMPTY, "no text"),
    ("hello", Reason.BAD_CIF, "data_"),
    ("\x00" * 100, Reason.BAD_CIF, ""),
    ("\ud800", Reason.BAD_CIF, ""),
    (HEAD.format(name="empty"), Reason.NO_SITES, "atom sites"),
    (edited("_a   5.64", "_a   -5.64"), Reason.IMPOSSIBLE_CELL, "-5.64"),
    (edited("_a   5.64", "_a   0"), Reason.IMPOSSIBLE_CELL, "positive"),
    (edited("_a   5.64", "_a   5e9"), Reason.IMPOSSIBLE_CELL, "1000"),
    (edited("_a   5.64", "_a   nan"), Reason.BAD_CIF, "nan"),
    (edited("_a   5.64", "_a   inf"), Reason.BAD_CIF, "inf"),
    (edited("_a   5.64", "_a   1e999"), Reason.BAD_CIF, "finite"),
    (edited("_a   5.64", "_a   5.٦64"), Reason.BAD_CIF, "not a number"),
    (edited("_cell_length_a   5.64\n", ""), Reason.BAD_CIF, "length_a not given"),
    (edited("gamma   90", "gamma   180"), Reason.IMPOSSIBLE_CELL, "180"),
    (SALT.replace("a   90", "a   120"), Reason.IMPOSSIBLE_CELL, "close no cell"),
    (edited("0.5  0.5  0.5", "nan  0.5  0.5"), Reason.BAD_CIF, "nan"),
    (edited("0.5  0.5  0.5", "?  0.5  0.5"), Reason.BAD_CIF, "fract_x"),
    (edited("0.5  0.5  0.5", ".  0.5  0.5"), Reason.BAD_CIF, "fract_x"),
    (edited("0.5  0.5  0.5", "1e50  0.5  0.5"), Reason.BAD_CIF, "1e50"),
    (edited("0.5  0.5  0.5  1", "0.5  0.5  0.5  0.5"), Reason.DISORDERED, "0.5"),
    (edited("0.5  0.5  0.5  1", "0.5  0.5  0.5  0"), Reason.DISORDERED, "0"),
    (edited("0.5  0.5  0.5  1", "0.5  0.5  0.5  nan"), Reason.BAD_CIF, "nan"),
    (edited("0.5  0.5  0.5  1", "0.0  0.0  0.0  1"), Reason.BAD_CIF, "ccupancy"),
    (edited("0.5  0.5  0.5  1", "0.5  0.5  0.5"), Reason.BAD_CIF, ""),
    (edited("Cl  Cl1", "Xx  Xx1"), Reason.UNKNOWN_ELEMENT, "Xx"),
    (edited("Cl  Cl1", "D   D1"), Reason.UNKNOWN_ELEMENT, "D"),
    (edited("Cl  Cl1", "OH  OH1"), Reason.UNKNOWN_ELEMENT, "OH"),
    (edited("'x,y+1/2,z+1/2'", "'x,y+1/2,w'"), Reason.BAD_CIF, "operator"),
    (edited("'x,y+1/2,z+1/2'", "'x,x,z'"), Reason.BAD_CIF, "volume"),
    (edited("'x,y+1/2,z+1/2'", "'x,y,__import__(1)'"), Reason.BAD_CIF, "operator"),
    (f"{PRIMITIVE}_symmetry_space_group_name_H-M 'Q 99'\n", Reason.BAD_CIF, "Q 99"),
    (f"{PRIMITIVE}_space_group_magn.number_BNS 1.1\n", Reason.BAD_CIF, "magnetic"),
    (many_operators(193), Reason.TOO_LARGE, "193 symmetry operators"),
    (many_operators(5_000), Reason.TOO_LARGE, "5000 symmetry operators"),
    (many_operators(193).replace("'\n '", "' '"), Reason.TOO_LARGE, "193 symmetry operators"),
    (many_sites(501), Reason.TOO_LARGE, "sites"),
    (many_sites(20_000), Reason.TOO_LARGE, "sites"),
    (many_operators(192) + " Na Na2 0 .1 .2 1\n", Reason.TOO_LARGE, "576 sites"),
    ("#" * 1_000_001, Reason.TOO_LARGE, "bytes"),
    ("_atom_site_label\n" * 20_000, Reason.BAD_CIF, ""),
    (f"data_x\nloop_{NEWLINES}", Reason.BAD_CIF, "line"),
    (f"data_x\n_a\n;{NEWLINES}", Reason.BAD_CIF, "unterminated text field"),
    (f"data_x{BLANKS}y\n", Reason.BAD_CIF, "not given"),
    ("data_x\n" + "loop_\n_publ_author_name\n'a'b,\n" * 30_000, Reason.BAD_CIF, ""),
    (f"{PRIMITIVE}_symmetry_space_group_name_H-M 'P{BLANKS}x'\n", Reason.BAD_CIF, "unknown"),
    (f"{PRIMITIVE}_space_group_IT_number {DIGITS}\n", Reason.BAD_CIF, "unknown space group"),
    (f"{PRIMITIVE}_cell_formula_units_Z {DIGITS}\n", Reason.BAD_CIF, "not finite"),
    (edited("0.5  1\n", f"0.5  {DIGITS}\n"), Reason.BAD_CIF, "not finite"),
    (edited("Cl  Cl1", f"{'C' * 900_000}  Cl1"), Reason.UNKNOWN_ELEMENT, "CCC"),
    (edited("'x,y+1/2,z+1/2'", "'x,y,z+1/0'"), Reason.BAD_CIF, "not a symmetry operator"),
    (many_operators(192).replace("0.5  0.5  0.5", "0.0  0.0  0.0"), Reason.BAD_CIF, "one place"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason", "words"), HOSTILE, ids=range(len(HOSTILE)))
def test_each_hostile_cif_has_its_reason(
    reader: CifReader, text: str, reason: Reason, words: str
) -> None:
    flaw = reader.read(text)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == reason
    assert words in flaw.detail
    assert len(flaw.detail) < 300


ODDITIES = [
    "\x00",
    "\n",
    "'",
    ";\n",
    "loop_\n",
    "_",
    "-",
    "nan",
    "1e308",
    "9" * 50,
    "٣",
    "?",
    "Xx",
    " 0 ",
]


@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.slow)])
def test_mutants_are_refused_or_physical(reader: CifReader, count: int) -> None:
    random_ = random.Random(count)
    accepted = 0
    for _ in range(count):
        text = random_.choice((SALT, PRIMITIVE))
        for _ in range(random_.randint(1, 4)):
            i = random_.randrange(len(text))
            end = i + random_.choice((0, 0, 1, 1, 2, 30))
            text = (
                text[:i] + random_.choice(("", *ODDITIES, chr(random_.randrange(256)))) + text[end:]
            )
        crystals = reader.read(text)
        if isinstance(crystals, Flaw):
            continue
        accepted += 1
        for crystal in crystals:
            assert np.isfinite(crystal.lattice).all()
            assert crystal.volume_a3 > 0
            assert set(crystal.species) <= ELEMENTS
    assert 0 < accepted < count


def test_what_takes_too_long_is_ended_and_the_next_file_is_read() -> None:
    with CifReader(CifLimits(wall_s=1e-4)) as reader:
        flaw = reader.read(many_operators(192) + many_sites(490).partition("_occupancy\n")[2])
        assert isinstance(flaw, Flaw)
        assert flaw.reason == Reason.TIMEOUT
        reader.limits = CifLimits()
        assert isinstance(reader.read(SALT), list)


def test_a_child_killed_meanwhile_is_replaced(reader: CifReader) -> None:
    reader.read(SALT)
    assert reader._child is not None
    reader._child.kill()
    reader._child.wait()
    assert isinstance(reader.read(SALT), list)


def test_a_child_that_cannot_start_is_a_clear_error() -> None:
    with pytest.raises(PreflightError, match="did not start"):
        read_cif(SALT, CifLimits(memory_bytes=1 << 20))


def test_code_in_a_transformation_is_not_run(reader: CifReader, tmp_path: Path) -> None:
    """The form of CVE-2024-23346: an expression where magnetic CIF states a change of axes."""
    marker = tmp_path / "ran"
    code = f"a,b,[open('{marker}','w')][0];0,0,0"
    for key in ("_space_group_magn.transform_BNS_Pp_abc", "_space_group_magn_transform_BNS_Pp_abc"):
        for number in ("_space_group_magn.number_BNS 62.448\n", ""):
            flaw = reader.read(edited("loop_", f'{number}{key} "{code}"\nloop_'))
            assert isinstance(flaw, Flaw)
    assert not marker.exists()


@pytest.mark.parametrize("event", ["socket.connect", "subprocess.Popen", "os.system", "os.remove"])
def test_the_child_forbids_itself_the_outside(event: str) -> None:
    with pytest.raises(PermissionError, match=event):
        _forbid(event, ())


def test_the_child_may_only_read_files() -> None:
    _forbid("open", ("a", "r", os.O_RDONLY | os.O_CLOEXEC))
    with pytest.raises(PermissionError):
        _forbid("open", ("a", "w", os.O_WRONLY | os.O_CREAT))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_child_dies_with_its_parent() -> None:
    code = (
        "from hullward.tools.crystal.files.cif import CifReader; import time\n"
        "reader = CifReader(); child = reader._running()\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Running, not merely waiting for its exit status to be read."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
