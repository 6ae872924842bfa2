"""Completions as models write them: the crystal in them is read, or one reason says why not."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hullward.models.crystal import Crystal
from hullward.tools.crystal.text import parse_cell_text, read_asymmetric, read_completion
from hullward.tools.records import Flaw

FILES = Path(__file__).parent / "files"

BODY = "4.2 4.2 6.7\n90 90 120\nGa\n0.33 0.67 0.00\nN\n0.33 0.67 0.38"
LINES = BODY.split("\n")
CIF = """data_GaN
_cell_length_a 3.2
_cell_length_b 3.2
_cell_length_c 5.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 63 m c'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Ga1 0.3333 0.6667 0
N1 0.3333 0.6667 0.38
"""
POSCAR = """GaN
1.0
3.2 0 0
-1.6 2.77 0
0 0 5.2
Ga N
1 1
Direct
0.33 0.67 0
0.33 0.67 0.38
"""
JSON = json.dumps({"lengths": [4.2, 4.2, 6.7], "angles": [90, 90, 120], "species": ["Ga", "N"]})

READ = ("", "")
Flawed = tuple[str, str]  # reason, and words of its detail

# a text, and its flaw: READ where the crystal is read
TEXTS: dict[str, tuple[str, Flawed]] = {
    "plain": (BODY, READ),
    "a fence": (f"```\n{BODY}\n```", READ),
    "a fence with a language": (f"```text\n{BODY}\n```", READ),
    "prose around a fence": (f"Here is a stable structure:\n```\n{BODY}\n```\nLet me know!", READ),
    "prose before": (f"Sure! Here is the crystal:\n\n{BODY}", READ),
    "thoughts on a line": (f"<think>need wurtzite</think>\n{BODY}", READ),
    "thoughts with a draft": (
        f"<think>\nneed 4.2 4.2 6.7\n90 90 120\nGa\n0.00 0.00 0.00\n</think>\n\n{BODY}",
        READ,
    ),
    "thoughts without a beginning": (f"need wurtzite</think>\n{BODY}", READ),
    "a typographic minus": (
        BODY.replace("0.67", "\u22120.33"),
        ("bad_coordinate_line", "line 4: .*\\\\u22120.33"),
    ),
    "a minus": (BODY.replace("0.67", "-0.33"), ("bad_coordinate_line", "line 4: .*-0.33")),
    "full-width digits": (
        BODY.replace("4.2 4.2 6.7", "\uff14.\uff12 \uff14.\uff12 \uff16.\uff17"),
        ("bad_lengths", r"line 1: .*\\uff14"),
    ),
    "decimal commas": (BODY.replace(".", ","), ("bad_lengths", "line 1: .*'4,2 4,2 6,7'")),
    "commas between": (
        BODY.replace("0.33 0.67 0.00", "0.33, 0.67, 0.00"),
        ("bad_coordinate_line", "line 4: .*'0.33, 0.67, 0.00'"),
    ),
    "a numbered list": (
        "\n".join(f"{i}. {line}" for i, line in enumerate(LINES, 1)),
        ("prose", "but a numbered or bulleted list"),
    ),
    "three decimals": (
        BODY.replace("0.33 0.67 0.38", "0.333 0.667 0.375"),
        ("bad_coordinate_line", "line 6: .*'0.333 0.667 0.375'"),
    ),
    "lengths of two decimals": (
        BODY.replace("4.2 4.2 6.7", "4.20 4.20 6.70"),
        ("bad_lengths", "line 1: .*'4.20 4.20 6.70'"),
    ),
    "angles with a decimal": (
        BODY.replace("90 90 120", "90.0 90.0 120.0"),
        ("bad_angles", "line 2: .*'90.0 90.0 120.0'"),
    ),
    "no-break spaces": (
        BODY.replace(" ", "\u00a0"),
        ("prose", "but spaces that are not ASCII"),
    ),
    "a space without width": (
        BODY.replace("Ga", "Ga\u200b"),
        ("bad_element_line", r"line 3: .*Ga\\u200b"),
    ),
    "tabs": (BODY.replace(" ", "\t"), ("bad_lengths", r"line 1: .*4.2\\t4.2")),
    "carriage returns": (BODY.replace("\n", "\r\n"), READ),
    "a byte order mark": (f"\ufeff{BODY}", READ),
    "two structures": (f"{BODY}\n\n{BODY}", READ),
    "two structures with a heading": (f"{BODY}\n\n### Structure 2\n{BODY}", READ),
    "prose after": (f"{BODY}\n\nThis is wurtzite GaN.", READ),
    "a title after": (f"{BODY}\nTitle: x", READ),
    "an end token": (f"{BODY}</s>", READ),
    "an end token of ChatML": (f"{BODY}<|im_end|>", READ),
    "an end token on a line": (f"{BODY}\n<|eot_id|>", READ),
    "blank lines between": (BODY.replace("\n", "\n\n"), ("bad_angles", "line 2: .*found ''")),
    "oxidation states": (
        BODY.replace("Ga\n", "Ga3+\n"),
        ("bad_element_line", "line 3: .*'Ga3\\+'"),
    ),
    "labels": (BODY.replace("Ga\n", "Ga1\n"), ("bad_element_line", "line 3: .*'Ga1'")),
    "small letters": (BODY.replace("Ga\n", "ga\n"), ("bad_element_line", "line 3: .*'ga'")),
    "names": (BODY.replace("Ga\n", "Gallium\n"), ("bad_element_line", "line 3: .*'Gallium'")),
    "deuterium": (BODY.replace("N\n", "D\n"), ("unknown_element", "line 5: .*'D'")),
    "an element on its line": (
        BODY.replace("Ga\n", "Ga "),
        ("bad_element_line", "line 3: .*'Ga 0.33 0.67 0.00'"),
    ),
    "a coordinate of one": (BODY.replace("0.38", "1.00"), READ),
    "a negative angle": (BODY.replace("120", "-120"), ("bad_angles", "line 2: .*-120")),
    "cut in a line": (BODY[:-3], ("truncated", "ends within line 6")),
    "cut in a number": (BODY[:-1], ("truncated", "ends within line 6")),
    "cut after an element": (f"{BODY}\nGa", ("truncated", "ends after line 7")),
    "a CIF": (CIF, ("prose", "but a CIF instead of crystal text")),
    "a POSCAR": (POSCAR, ("bad_lengths", "line 1: .*'GaN'")),
    "JSON": (JSON, ("prose", "but JSON instead of crystal text")),
    "quotes": (f'"{BODY}"', ("bad_lengths", "line 1: .*'\"4.2 4.2 6.7'")),
    "line breaks written out": (
        BODY.replace("\n", "\\n"),
        ("prose", "but line breaks or tabs that are written out"),
    ),
    "line breaks of HTML": (
        BODY.replace("\n", "<br>"),
        ("prose", "but line breaks or tabs that are written out"),
    ),
    "bold": (f"**{BODY}**", ("bad_lengths", r"line 1: .*'\*\*4.2 4.2 6.7'")),
    "exponents": (BODY.replace("0.00", "0e0"), ("bad_coordinate_line", "line 4: .*0e0")),
    "a sign after": (f"{BODY}\n%", READ),
}

# the same for whole files
EXPECTED: dict[str, Flawed] = {
    "own/texts/alternative.txt": READ,  # the first of two
    "own/texts/answer_tags.txt": READ,
    "own/texts/apology.txt": ("prose", "begins \"I'm sorry"),
    "own/texts/arabic_digits.txt": ("prose", "but digits that are not ASCII"),
    "own/texts/bom_and_fence.txt": READ,
    "own/texts/bracket_thought.txt": READ,
    "own/texts/bullets.txt": ("prose", "but a numbered or bulleted list"),
    "own/texts/cif_in_fence.txt": ("prose", "but a CIF"),
    "own/texts/crlf_fence.txt": READ,
    "own/texts/deepseek_end.txt": READ,
    "own/texts/draft_in_thoughts.txt": READ,  # what follows the thoughts
    "own/texts/echoed_prompt.txt": READ,
    "own/texts/ellipsis.txt": ("bad_coordinate_line", "line 6: .*'...'"),
    "own/texts/end_of_text_and_more.txt": READ,
    "own/texts/escaped_tabs.txt": ("prose", "tabs that are written out"),
    "own/texts/fence_glued.txt": READ,
    "own/texts/fence_without_end.txt": READ,
    "own/texts/flat_cell.txt": ("impossible_cell", "angles must be between 0 and 180"),
    "own/texts/gemma_end.txt": READ,
    "own/texts/harmony_channels.txt": READ,
    "own/texts/heading.txt": READ,
    "own/texts/named_lengths.txt": ("prose", "begins 'a = 4.2"),
    "own/texts/next_turn.txt": READ,
    "own/texts/no_element.txt": ("unknown_element", "line 3: .*'Qq'"),
    "own/texts/no_sites.txt": ("no_sites", "ends after line 2"),
    "own/texts/only_end.txt": ("empty", "no text but the end of a turn"),
    "own/texts/pre_tag.txt": READ,
    "own/texts/reasoning_tags.txt": READ,
    "own/texts/repeated_site.txt": ("repetition", "one site 4 times or more"),
    "own/texts/role_before.txt": READ,
    "own/texts/second_fence.txt": READ,
    "own/texts/spaces.txt": ("empty", "no text"),
    "own/texts/table.txt": ("bad_element_line", "line 3: .*Ga \\| 0.33"),
    "own/texts/thought_without_end.txt": ("prose", "thoughts alone"),
    "own/texts/thoughts_alone.txt": ("prose", "thoughts alone"),
    "own/texts/tilde_fence.txt": READ,
    "own/texts/triangle_thought.txt": READ,
    "own/texts/units.txt": ("bad_lengths", "line 1: .*6.7 "),
    "own/texts/yaml.txt": ("prose", "begins 'lengths: "),
}


def outcome(text: str) -> Crystal | Flaw:
    read = read_completion(text, "stop")
    assert read.cut == (0 if read.flaw else len(text) - len(read.raw))
    return read.flaw or parse_cell_text(read.raw)


def check(text: str, flaw: Flawed) -> None:
    found, (reason, words) = outcome(text), flaw
    if reason:
        assert isinstance(found, Flaw)
        assert found.reason == reason
        assert re.search(words, found.detail), found.detail
    else:
        assert isinstance(found, Crystal), found
        assert found.species == ("Ga", "N")
        assert found.parameters[0] == pytest.approx((4.2, 4.2, 6.7))
        assert found.frac_coords[0] == pytest.approx((0.33, 0.67, 0.0))


@pytest.mark.parametrize("name", TEXTS)
def test_the_crystal_in_a_text_is_read_or_a_reason_is_given(name: str) -> None:
    check(*TEXTS[name])


@pytest.mark.parametrize("file", EXPECTED)
def test_the_crystal_in_a_file_is_read_or_a_reason_is_given(file: str) -> None:
    check((FILES / file).read_bytes().decode("utf-8"), EXPECTED[file])


def test_every_text_of_our_own_is_in_the_table() -> None:
    files = {f"own/texts/{path.name}" for path in (FILES / "own" / "texts").iterdir()}
    assert files == set(EXPECTED)


PROSE = st.text(st.characters(codec="utf-8", exclude_characters="<`~\u25c1["), max_size=60)


@given(before=PROSE, after=PROSE)
@example(before="4.2 4.2 6.7", after="Ga")
def test_prose_in_thoughts_or_around_a_fence_changes_nothing(before: str, after: str) -> None:
    for text in (
        f"<think>{before}</think>\n{BODY}\n\n</s>",
        f"{before}\n```\n{BODY}\n```\n{after}",
        f"[THINK]{before}[/THINK]\n```\n{BODY}```",
    ):
        assert outcome(text) == parse_cell_text(BODY)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    for reason in ("stop", "length"):
        read_completion(text, reason)
        read_asymmetric(text, reason)


def test_an_asymmetric_unit_is_found_behind_thoughts_and_in_a_fence() -> None:
    unit = "225\n4.2 4.2 4.2\n90 90 90\nNa 4a\n"
    for text in (unit, f"<think>salt</think>{unit}</s>", f"```\n{unit}```\nDone."):
        assert read_asymmetric(text, "stop").raw == unit.strip()
    assert read_asymmetric("<think>salt</think>", "stop").flaw
