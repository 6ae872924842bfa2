"""Campaign files are read as their authors meant them, or refused with file, line and remedy."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.agents.settings import Campaign, read_campaign
from hullward.models.errors import InputError
from hullward.models.yaml_file import read_yaml

FILES = Path(__file__).parent / "files"
LI_MN_O = ("Li-Mn-O",)

# What a file gives: some of its settings, or the message after the file's name.
EXPECTED: dict[str, dict[str, Any] | str] = {
    "campaigns/yaml_D.yaml": "line 2: .*'D' is not an element; hydrogen is H",
    "campaigns/yaml_NOsys.yaml": "line 2: .*'NO' is not an element; did you mean the system N-O",
    "campaigns/yaml_anchor.yaml": "line 1: unknown key `x-base`",
    "campaigns/yaml_bom.yaml": {"name": "a", "systems": LI_MN_O},
    "campaigns/yaml_bool_num.yaml": "line 3: `max_atoms`: .*'yes'.*: write a whole number",
    "campaigns/yaml_crlf.yaml": {"name": "a", "systems": LI_MN_O},
    "campaigns/yaml_docs.yaml": "line 3: a second document begins: keep one",
    "campaigns/yaml_dup.yaml": "line 6: key `budget` again, after line 3: keep one",
    "campaigns/yaml_exp.yaml": {"protocol.fmax_ev_per_a": 0.05, "budget.cycles": 10},
    "campaigns/yaml_float_int.yaml": {"max_atoms": 12, "seed": 7},
    "campaigns/yaml_hours.yaml": "line 3: `budget.hours`: .*'1:30'.*: write a decimal number",
    "campaigns/yaml_hugeint.yaml": "line 3: `seed`: at most 9223372036854775807",
    "campaigns/yaml_latin1.yaml": "line 1: byte 0xe9 is not UTF-8: save the file as UTF-8",
    "campaigns/yaml_name_date.yaml": {"name": "2024-05-01"},
    "campaigns/yaml_name_num.yaml": "line 1: `name`: .*2024.*: write text in quotes",
    "campaigns/yaml_nan.yaml": "line 3: `metastable_ev_per_atom`: .*finite number",
    "campaigns/yaml_no.yaml": {"elements": ("No", "O", "Li")},
    "campaigns/yaml_seed_octal.yaml": {"seed": 10},
    "campaigns/yaml_sys_dup.yaml": {
        "target_systems": ("Li-Mn-O",),
    },
    "campaigns/yaml_sys_str.yaml": {"systems": LI_MN_O},
    "campaigns/yaml_tab.yaml": "line 4: .*a tab .*: indent with spaces",
    "campaigns/yaml_unisys.yaml": "line 2: .*has dashes: write hyphens, Li-Mn-O",
    "campaigns/yaml_yn.yaml": {"elements": ("Y", "N", "O")},
    "own/campaigns/alias_itself.yaml": "line 3: alias .g before the end of its anchor: quote it",
    "own/campaigns/alias_once.yaml": {"elements": ("Li", "O"), "oxidation_states": {"Li": (1,)}},
    "own/campaigns/alias_unknown.yaml": "line 3: alias .later before .*: quote it",
    "own/campaigns/binary.yaml": "line 2: byte 0x80 is not UTF-8: save the file as UTF-8",
    "own/campaigns/block_text.yaml": {"goal": "Stable oxides: find them\n"},
    "own/campaigns/bom_twice.yaml": {"name": "a", "systems": LI_MN_O},
    "own/campaigns/bool_in_list.yaml": "line 2: `elements`: .*found true: write it",
    "own/campaigns/bool_number.yaml": "line 3: `max_atoms`: .*found true: write it",
    "own/campaigns/bool_protocol.yaml": "line 3: `protocol.max_steps`: .*found true: write it",
    "own/campaigns/bool_states.yaml": "line 3: `oxidation_states`: .*found true: write it",
    "own/campaigns/bool_words.yaml": {
        "require_charge_balance": True,
        "overlap": False,
        "relax_known": False,
    },
    "own/campaigns/colon_in_text.yaml": "line 3: .*: one `key: value` a line, and quote text",
    "own/campaigns/comment_only.yaml": "line 1: expected `key: value` lines, found nothing",
    "own/campaigns/cr_lines.yaml": {"systems": LI_MN_O, "seed": 5},
    "own/campaigns/date_as_goal.yaml": {"goal": "2024-02-31"},
    "own/campaigns/deep.yaml": "line 3: nested deeper than 20 levels: flatten it",
    "own/campaigns/deep_block.yaml": "line 23: nested deeper than 20 levels: flatten it",
    "own/campaigns/digits_5000.yaml": "line 3: a number of 5000 digits: at most 100",
    "own/campaigns/digits_quoted.yaml": "line 3: `seed`: at most 9223372036854775807",
    "own/campaigns/dup_nested.yaml": "line 6: key `cycles` again, after line 4: keep one",
    "own/campaigns/dup_quoted.yaml": "line 4: key `seed` again, after line 3: keep one",
    "own/campaigns/dup_states.yaml": "line 3: key `Mn` again, after line 3: keep one",
    "own/campaigns/element_number.yaml": "line 2: `elements.1`: .*8.*: write text in quotes",
    "own/campaigns/element_y_n.yaml": {
        "elements": ("Y", "N", "No", "O"),
        "oxidation_states": {"N": (-3,), "Y": (3,)},
    },
    "own/campaigns/empty_path.yaml": "line 3: `known_phases` is empty: name a path",
    "own/campaigns/escape.yaml": "line 3: a control character .*: take it out",
    "own/campaigns/escape_raw.yaml": "line 3: .*a control character: take it out",
    "own/campaigns/exclude_no.yaml": {"target_systems": ("Li-O",)},
    "own/campaigns/exponents.yaml": {
        "metastable_ev_per_atom": 0.05,
        "budget.tokens": 2_000_000,
        "budget.hours": 1.5,
    },
    "own/campaigns/formula_as_system.yaml": "line 2: .*did you mean the system Li-Mn-O",
    "own/campaigns/fraction_for_count.yaml": "line 3: `budget.cycles`: .*: write a whole number",
    "own/campaigns/full_width.yaml": "line 2: .*is not an element; did you mean Li",
    "own/campaigns/hex.yaml": {"seed": 31},
    "own/campaigns/home_unknown.yaml": {
        "known_phases": FILES / "own/campaigns/~no-such-user/phases"
    },
    "own/campaigns/indented_wrong.yaml": "line 5: .*one `key: value` a line",
    "own/campaigns/infinite.yaml": "line 3: `budget.hours`: .*finite number",
    "own/campaigns/infinite_word.yaml": "line 3: `budget.hours`: .*finite number",
    "own/campaigns/key_list.yaml": "line 3: a key that is no plain text: write text",
    "own/campaigns/key_number.yaml": "line 3: unknown key `7`; valid: name",
    "own/campaigns/key_of_escapes.yaml": "line 3: a control character .*: take it out",
    "own/campaigns/large.yaml": "larger than 100 kB: shorten it",
    "own/campaigns/laughs.yaml": "line 5: more than 10000 values, aliases counted: shorten it",
    "own/campaigns/laughs_merge.yaml": "line 3: more than 10000 values, aliases counted: shorten",
    "own/campaigns/leading_zeros.yaml": {"max_atoms": 8, "budget.cycles": 7},
    "own/campaigns/list_at_top.yaml": "line 1: expected `key: value` lines, found a list",
    "own/campaigns/many_proposals.yaml": "line 3: `budget.proposals_per_cycle`: .*100000",
    "own/campaigns/many_workers.yaml": "line 3: `workers`: .*1024",
    "own/campaigns/merge.yaml": {"budget.cycles": 2, "budget.tokens": 9},
    "own/campaigns/merge_value.yaml": "line 3: `<<` merges keys, not values: write them out",
    "own/campaigns/minus_sign.yaml": "line 2: .*has dashes: write hyphens, Li-Mn-O",
    "own/campaigns/name_capital.yaml": "line 1: `name`: .*pattern",
    "own/campaigns/non_breaking_space.yaml": "line 3: .*: write `key: value`",
    "own/campaigns/nothing_after_colon.yaml": "line 3: `budget`: .*: write keys and values",
    "own/campaigns/null_words.yaml": {
        "known_phases": None,
        "second_reference": None,
        "second_opinion": None,
    },
    "own/campaigns/number_as_goal.yaml": "line 3: `goal`: .*2024.*: write text in quotes",
    "own/campaigns/number_for_bool.yaml": "line 3: `overlap`: write true or false, not 1",
    "own/campaigns/octal_new.yaml": {"seed": 15},
    "own/campaigns/one_marked_document.yaml": {"name": "a"},
    "own/campaigns/only_text.yaml": "line 1: expected `key: value` lines, found text",
    "own/campaigns/overflow.yaml": "line 3: `budget.hours`: .*finite number",
    "own/campaigns/percent.yaml": "line 3: .*text cannot begin with %: quote it",
    "own/campaigns/seed_largest.yaml": {"seed": 2**63 - 1},
    "own/campaigns/seed_too_large.yaml": "line 3: `seed`: at most 9223372036854775807",
    "own/campaigns/sexagesimal_float.yaml": "line 3: .*margin_ev_per_atom`: .*: write a decimal",
    "own/campaigns/sexagesimal_int.yaml": "line 3: `seed`: .*: write a whole number",
    "own/campaigns/states_far.yaml": "line 3: .*Mn has no oxidation state 25",
    "own/campaigns/states_text.yaml": "line 3: `oxidation_states.Mn`: .*: write a list",
    "own/campaigns/surrogate.yaml": "line 3: .*half a character: take it out",
    "own/campaigns/system_repeated.yaml": {"target_systems": ("Li-O",)},
    "own/campaigns/systems_as_text.yaml": {"systems": ("Li-Mn-O", "Na-Mn-O")},
    "own/campaigns/tab_in_list.yaml": "line 3: .*a tab .*: indent with spaces",
    "own/campaigns/tag_int.yaml": "line 3: the tag .*int: take it out",
    "own/campaigns/tag_python.yaml": "line 3: the tag .*python.*: take it out",
    "own/campaigns/two_documents.yaml": "line 4: a second document begins: keep one",
    "own/campaigns/unclosed.yaml": "line 3: .*a list without its end: close it",
    "own/campaigns/unclosed_quote.yaml": "line 4: .*quotes that are not closed: close them",
    "own/campaigns/underscores.yaml": {"budget.tokens": 1_000_000},
    "own/campaigns/utf16.yaml": "line 1: its text is UTF-16: save it as UTF-8",
    "own/campaigns/utf8_cut.yaml": "line 3: byte 0xc3 is not UTF-8: save the file as UTF-8",
    "own/campaigns/yaml_1_1.yaml": "line 1: .*YAML 1.2: take the %YAML line out",
    "own/campaigns/yaml_1_2.yaml": {"name": "a"},
    "own/campaigns/zero_byte.yaml": "line 3: .*a control character: take it out",
    "own/campaigns/zero_byte_path.yaml": "line 3: a control character .*: take it out",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_campaign_file_is_read_as_its_author_means_it_or_refused(name: str) -> None:
    path, expected = FILES / name, EXPECTED[name]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{expected}"):
            read_campaign(path)
        return
    campaign: Any = read_campaign(path)
    for key, value in expected.items():
        found = campaign
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key
        assert type(found) is type(value), key


def test_every_own_campaign_file_has_its_row() -> None:
    there = {f"own/campaigns/{path.name}" for path in (FILES / "own/campaigns").iterdir()}
    assert {name for name in EXPECTED if name.startswith("own/campaigns/")} == there


PIECES = ["name: a\n", "systems: [Li-O]\n", "seed: ", "budget: {", "cycles: 1", "}", "[", "]", "- "]
PIECES += ["&a ", "*a ", "<<: ", "? ", "!!int ", "'", '"', "\\x1b", "\\ud800", ".nan", "0o7", "~"]
PIECES += ["9" * 400, "1:30", "yes", "\n", "\t", ": ", "%YAML 1.1\n", "---\n", "|\n", "#", "\ufeff"]
LIKE_YAML = st.lists(st.sampled_from(PIECES), max_size=30).map(
    lambda parts: "".join(parts).encode()
)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300) | LIKE_YAML)
def test_any_bytes_give_a_campaign_or_an_error_that_names_the_file(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    began = time.perf_counter()
    try:
        problem = ""
        assert isinstance(read_campaign(path), Campaign)
    except InputError as error:
        problem = str(error)
    assert time.perf_counter() - began < 1
    assert not problem or "any.yaml" in problem


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[1," * 30_000,
        "- " * 49_000,
        "? " * 49_000,
        "{" * 99_000,
        "a: [" + "1," * 49_000 + "]",
        "a: '" + "\n b" * 30_000 + "'",
        "a: |\n" + " b\n" * 30_000,
        "\n" * 99_000,
        "".join(f"k{i}: {i}\n" for i in range(8000)),
        "".join(f"k{i}: &a{i} [{'*a' + str(i - 1) if i else '1'}]\n" for i in range(3000)),
    ],
    ids=lambda text: str(text[:9]),
)
def test_the_largest_files_are_read_or_refused_within_seconds(tmp_path: Path, text: str) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(text)
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"large\.yaml"):
        read_campaign(path)
    assert time.perf_counter() - began < 5


def test_an_alias_keeps_the_value_of_its_own_time(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: &a 1\ny: &b [*a]\nz: &a 2\nw: [*a, *b]\n")
    file = read_yaml(path, "file")
    assert file.data == {"x": 1, "y": [1], "z": 2, "w": [2, [1]]}
    assert file.line(("w", 1, 0)) == 4


def test_an_error_of_the_whole_file_names_the_line_of_a_key_it_mentions(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nsystems: [Li-O]\nmin_elements: 3\nmax_elements: 2\n")
    with pytest.raises(InputError, match=r"a\.yaml: line 4: max_elements 2 < min_elements 3"):
        read_campaign(path)
