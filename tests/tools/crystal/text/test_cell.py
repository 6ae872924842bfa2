"""The crystal-text codec: exact, strict, and never surprised."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.models.formulas import ELEMENTS
from hullward.tools.crystal.input_checks import MAX_SITES
from hullward.tools.crystal.text import parse_cell_text, split_completion, write_cell_text
from hullward.tools.crystal.text.cell import MAX_CHARS
from hullward.tools.records import Flaw, Reason

GATE = "4.2 4.2 6.7\n90 90 120\nGa\n0.37 0.85 0.89\nTe\n0.03 0.19 0.39"
SYMBOLS = sorted(ELEMENTS)


@st.composite
def canonical_texts(draw: st.DrawFn) -> str:
    """Texts as `write_cell_text` writes them: any lengths, possible angles, wrapped sites."""
    lengths = draw(st.tuples(*[st.integers(1, 9999)] * 3))
    angles = draw(st.tuples(*[st.integers(61, 119)] * 3).filter(lambda a: sum(a) < 359))
    lines = [" ".join(f"{x // 10}.{x % 10}" for x in lengths), " ".join(map(str, angles))]
    site = st.tuples(st.sampled_from(SYMBOLS), st.tuples(*[st.integers(0, 99)] * 3))
    for symbol, xyz in draw(st.lists(site, min_size=1, max_size=12)):
        lines += [symbol, " ".join(f"0.{x:02d}" for x in xyz)]
    return "\n".join(lines)


@st.composite
def crystals(draw: st.DrawFn) -> Crystal:
    lengths = draw(st.tuples(*[st.floats(0.1, 900.0)] * 3))
    angles = draw(st.tuples(*[st.floats(62.0, 118.0)] * 3).filter(lambda a: sum(a) < 355))
    species = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=12))
    coordinate = st.tuples(*[st.floats(-3.0, 3.0)] * 3)
    coords = draw(st.lists(coordinate, min_size=len(species), max_size=len(species)))
    return Crystal.from_parameters(lengths, angles, species, coords)


@given(canonical_texts())
def test_text_to_structure_to_text_is_exact(text: str) -> None:
    crystal = parse_cell_text(text)
    assert isinstance(crystal, Crystal)
    assert write_cell_text(crystal) == text


@given(crystals())
def test_structure_to_text_to_structure_moves_nothing_by_more_than_rounding(old: Crystal) -> None:
    text = write_cell_text(old)
    new = parse_cell_text(text)
    assert isinstance(new, Crystal)
    assert write_cell_text(new) == text
    assert new.species == old.species
    assert np.allclose(new.parameters[0], old.parameters[0], atol=0.05 + 1e-9)
    assert np.allclose(new.parameters[1], old.parameters[1], atol=0.5 + 1e-9)
    moved = np.array(new.frac_coords) - np.array(old.frac_coords)
    assert np.max(np.abs(moved - np.round(moved))) <= 0.005 + 1e-9


@pytest.mark.parametrize("angle", [89, 90, 119, 120, 150, 179])
def test_one_wide_or_plain_angle_survives(angle: int) -> None:
    text = GATE.replace("90 90 120", f"90 90 {angle}")
    assert write_cell_text(parse_cell_text(text)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n\n", " \n", "\t", "\r\n"])
def test_blanks_at_the_end_are_tolerated(ending: str) -> None:
    assert write_cell_text(parse_cell_text(GATE + ending)) == GATE  # type: ignore[arg-type]


def test_blanks_at_the_ends_of_lines_are_tolerated() -> None:
    assert write_cell_text(parse_cell_text(GATE.replace("\n", " \t\r\n"))) == GATE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "written"),
    [
        (0.994, "0.99"),
        (0.9951, "0.00"),
        (1.0, "0.00"),
        (1.25, "0.25"),
        (-0.001, "0.00"),
        (-1e-18, "0.00"),
    ],
)
def test_coordinates_are_written_wrapped(x: float, written: str) -> None:
    crystal = Crystal.from_parameters((4, 4, 4), (90, 90, 90), ["Cu"], [[x, 0, 0]])
    assert write_cell_text(crystal).endswith(f"\n{written} 0.00 0.00")


def test_one_is_read_as_zero() -> None:
    one, zero = (
        parse_cell_text(GATE.replace("0.37", "1.00")),
        parse_cell_text(GATE.replace("0.37", "0.00")),
    )
    assert isinstance(one, Crystal)
    assert one == zero


DEFORMITIES = [
    ("", Reason.EMPTY, "no text"),
    (" \n\n", Reason.EMPTY, "no text"),
    ("4.2 4.2 6.7", Reason.TRUNCATED, "after line 1"),
    ("4.2 4.2 6.7\n90 90 120\n", Reason.NO_SITES, "after line 2"),
    (GATE + "\nTe", Reason.TRUNCATED, "after line 7"),
    (GATE[:-1], Reason.TRUNCATED, "within line 6"),
    (GATE[:-9], Reason.TRUNCATED, "within line 6"),
    (GATE[:-14], Reason.TRUNCATED, "after line 5"),
    (" " + GATE, Reason.BAD_LENGTHS, "line 1"),
    ("\n" + GATE, Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "-6.7"), Reason.BAD_LENGTHS, "-6.7"),
    (GATE.replace("6.7", "+6.7"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "6.70"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "6"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "06.7"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "1e3"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "nan"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "inf"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "1000.0"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("6.7", "٦.٧"), Reason.BAD_LENGTHS, "u0666"),
    (GATE.replace(" 6.7", ""), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("4.2 6.7", "4.2  6.7"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("4.2 4.2 6.7", "4.2, 4.2, 6.7"), Reason.BAD_LENGTHS, "line 1"),
    (GATE.replace("120", "120.0"), Reason.BAD_ANGLES, "line 2"),
    (GATE.replace("120", "-120"), Reason.BAD_ANGLES, "line 2"),
    (GATE.replace("90 90 120\n", ""), Reason.BAD_ANGLES, "line 2"),
    (GATE.replace("120", "180"), Reason.IMPOSSIBLE_CELL, "180"),
    (GATE.replace("120", "0"), Reason.IMPOSSIBLE_CELL, "0"),
    (GATE.replace("90 90 120", "120 120 120"), Reason.IMPOSSIBLE_CELL, "close no cell"),
    (GATE.replace("90 90 120", "30 30 90"), Reason.IMPOSSIBLE_CELL, "close no cell"),
    (GATE.replace("6.7", "0.0"), Reason.IMPOSSIBLE_CELL, "positive"),
    (GATE.replace("Ga", "ga"), Reason.BAD_ELEMENT_LINE, "line 3"),
    (GATE.replace("Ga", "[MASK]"), Reason.BAD_ELEMENT_LINE, "[MASK]"),
    (GATE.replace("Ga", "Ga3+"), Reason.BAD_ELEMENT_LINE, "line 3"),
    (GATE.replace("Te", "\n"), Reason.BAD_ELEMENT_LINE, "line 5"),
    (GATE.replace("Ga\n", ""), Reason.BAD_ELEMENT_LINE, "line 3"),
    (GATE.replace("Ga", "Xx"), Reason.UNKNOWN_ELEMENT, "Xx"),
    (GATE.replace("Ga", "D"), Reason.UNKNOWN_ELEMENT, "line 3"),
    (GATE.replace("0.37", "-0.37"), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE.replace("0.37", "1.01"), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE.replace("0.37", "0.370"), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE.replace("0.37", ".37"), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE.replace("0.37 ", ""), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE.replace("0.37 0.85 0.89\n", ""), Reason.BAD_COORDINATE_LINE, "line 4"),
    (GATE + " 0.5", Reason.BAD_COORDINATE_LINE, "line 6"),
    (GATE + "\nTitle", Reason.TRAILING_TEXT, "line 7"),
    (GATE + "\n\nThis is a layered semiconductor.", Reason.TRAILING_TEXT, "line 7"),
    (GATE + "\u2028", Reason.BAD_COORDINATE_LINE, "u2028"),
    (GATE + "\ud800", Reason.BAD_COORDINATE_LINE, "ud800"),
    (GATE + "\nGa\n0.00 0.00 0.00" * MAX_SITES, Reason.TOO_LARGE, "500 sites"),
    ("9" * (MAX_CHARS + 1), Reason.TOO_LARGE, "characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason", "words"), DEFORMITIES)
def test_each_deformity_has_its_reason(text: str, reason: Reason, words: str) -> None:
    flaw = parse_cell_text(text)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == reason
    assert words in flaw.detail
    assert len(flaw.detail) < 200


def test_the_largest_text_is_accepted_and_written_back() -> None:
    text = GATE + "\nGa\n0.00 0.00 0.00" * (MAX_SITES - 2)
    assert write_cell_text(parse_cell_text(text)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "angles", "species", "words"),
    [
        ((1000.0, 4, 4), (90, 90, 90), ["Cu"], "999.9"),
        ((0.04, 4, 4), (90, 90, 90), ["Cu"], "positive"),
        ((4, 4, 4), (119.8, 119.8, 120.2), ["Cu"], "close no cell"),
        ((4, 4, 4), (90, 90, 90), ["Xx"], "Xx"),
        ((4, 4, 4), (90, 90, 90), ["Cu"] * (MAX_SITES + 1), "sites"),
    ],
)
def test_what_the_form_cannot_hold_is_not_written(
    lengths: tuple[float, ...], angles: tuple[float, ...], species: list[str], words: str
) -> None:
    crystal = Crystal.from_parameters(lengths, angles, species, [[0, 0, 0]] * len(species))
    with pytest.raises(ValueError, match=words):
        write_cell_text(crystal)


@pytest.mark.parametrize(
    "rest", ["", "\n", "Title: GaTe", "\nTitle", "Ga", "Ga\n0.3", "Xx\n1.50 0.00 0.00\n"]
)
def test_a_completion_is_cut_after_its_last_site(rest: str) -> None:
    assert split_completion(GATE + "\n" + rest) == (GATE + "\n", rest)


@pytest.mark.parametrize("text", ["", "Sure! " + GATE, "4.2 4.2 6.7\n90 90 120\nTitle\n"])
def test_a_completion_without_a_site_has_no_head(text: str) -> None:
    assert split_completion(text) == ("", text)


@given(st.text())
def test_arbitrary_text_never_raises(text: str) -> None:
    assert isinstance(parse_cell_text(text), Flaw)
    assert "".join(split_completion(text)) == text


ODDITIES = [
    "\x00",
    "\n",
    " ",
    "-",
    "9" * 400,
    "1e308",
    "nan",
    "٣",
    "Xx",
    "0.0",
    "180",
    "\ud800",
    "１",
]


def mutated(random_: random.Random) -> str:
    """A canonical text with one to four insertions, deletions, swaps or duplications."""
    n = random_.randint(1, 6)
    lines = [" ".join(f"{random_.uniform(2, 12):.1f}" for _ in "abc")]
    lines.append(
        " ".join(str(random_.choice((60, 90, 90, 120, random_.randint(1, 179)))) for _ in "abc")
    )
    for _ in range(n):
        lines += [random_.choice(SYMBOLS), " ".join(f"{random_.random():.2f}" for _ in "xyz")]
    text = "\n".join(lines)
    for _ in range(random_.randint(1, 4)):
        i, j = sorted(random_.randrange(len(text) + 1) for _ in "ij")
        lines = text.split("\n")
        k, m = random_.randrange(len(lines)), random_.randrange(len(lines))
        kind = random_.randrange(6)
        if kind == 0:
            text = text[:i] + random_.choice(ODDITIES) + text[i:]
        elif kind == 1:
            text = text[:i] + text[j if random_.random() < 0.2 else i + 1 :]
        elif kind == 2:
            text = text[:i] + chr(random_.randrange(0x250)) + text[i + 1 :]
        elif kind == 3:
            text = "\n".join(lines[:k] + lines[k + 1 :])
        elif kind == 4:
            lines[k], lines[m] = lines[m], lines[k]
            text = "\n".join(lines)
        else:
            text = "\n".join([*lines[:k], lines[m], *lines[k:]])
    return text


@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutants_are_refused_or_physical(count: int) -> None:
    random_ = random.Random(count)
    accepted = 0
    for _ in range(count):
        text = mutated(random_)
        crystal = parse_cell_text(text)
        if isinstance(crystal, Flaw):
            assert crystal.detail
            continue
        accepted += 1
        assert np.isfinite(crystal.lattice).all()
        assert crystal.volume_a3 > 0
        assert set(crystal.species) <= ELEMENTS
        assert all(0 <= x < 1 for xyz in crystal.frac_coords for x in xyz)
        trimmed = "\n".join(line.rstrip(" \t\r") for line in text.split("\n")).rstrip("\n")
        assert write_cell_text(crystal) == trimmed.replace("1.00", "0.00")
    assert 0 < accepted < count


@settings(max_examples=20)
@given(canonical_texts(), st.data())
def test_dropping_any_line_is_noticed(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    k = data.draw(st.integers(0, len(lines) - 1))
    assert isinstance(parse_cell_text("\n".join(lines[:k] + lines[k + 1 :])), Flaw)
