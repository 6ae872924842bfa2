"""Counts and groups of equal crystals are the same in whatever order the crystals come."""

import itertools
import json
from pathlib import Path

import pytest

from hullward.agents.campaign.screen_file import describe, screen_file
from hullward.models.crystal import Crystal
from hullward.tools.crystal import group_equal
from hullward.tools.crystal.files import parse_raw, read_inputs
from hullward.tools.store import open_snapshot

FILES = Path(__file__).with_name("files")

# (valid, unique, sizes of the groups of equal ones)
EXPECTED = {
    "order_ABC.jsonl": (3, 1, [3]),
    "order_BAC.jsonl": (3, 1, [3]),
}


def counts(directory: Path, path: Path, reference: Path, **settings) -> tuple[int, int, list[int]]:
    """(valid, unique, group sizes) of a file, screened up to the labels before relaxation."""
    asked = {"potential": "toy", "reference": f"file:{reference}", "stop_after": "novel"}
    screen_file(directory, path, describe(path, **{**asked, **settings}), workers=0)
    with open_snapshot(directory) as snapshot:
        funnel = dict(snapshot.execute("SELECT stage, count FROM funnel").fetchall())
        groups = snapshot.execute(
            """SELECT count(*) FROM results WHERE candidate_id IS NOT NULL
               GROUP BY coalesce(duplicate_before, candidate_id) ORDER BY 1 DESC"""
        ).fetchall()
    return funnel["valid"], funnel["unique"], [size for (size,) in groups]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_counts_the_same_in_any_order(name, tmp_path, toy_reference):
    lines = (FILES / name).read_text().splitlines()
    for number, order in enumerate(itertools.permutations(lines)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("\n".join(order) + "\n")
        assert counts(tmp_path / f"s{number}", path, toy_reference) == EXPECTED[name], order


@pytest.mark.parametrize("name", EXPECTED)
def test_groups_of_a_file_are_those_of_the_evaluation(name):
    crystals = [parse_raw(item.raw, item.format) for item in read_inputs(FILES / name)]
    for order in itertools.permutations(crystals):
        assert sorted(map(len, group_equal(order)), reverse=True) == EXPECTED[name][2]


def layered(shift: float) -> Crystal:
    """A layered LiCoO2 cell whose oxygen layers are shifted along c, in fractions."""
    sites = [[0, 0, 0.5], [0, 0, 0], [1 / 3, 2 / 3, 0.25 + shift], [2 / 3, 1 / 3, 0.75 - shift]]
    return Crystal.from_parameters([2.82, 2.82, 4.9], [90, 90, 120], ["Li", "Co", "O", "O"], sites)


def test_a_chain_of_matches_is_one_group_and_its_ends_alone_are_two(tmp_path, toy_reference):
    chain = [layered(shift) for shift in (-0.12, -0.06, 0.0, 0.06, 0.12)]
    ends = [chain[0], chain[-1]]
    assert group_equal(ends) == [[0], [1]]
    for number, order in enumerate(itertools.permutations(chain)):
        assert group_equal(order) == [[0, 1, 2, 3, 4]]
        if number % 30 == 0:
            path = tmp_path / f"{number}.jsonl"
            path.write_text(
                "\n".join(json.dumps({"structure": json.loads(c.model_dump_json())}) for c in order)
            )
            assert counts(tmp_path / f"s{number}", path, toy_reference) == (5, 1, [5])
