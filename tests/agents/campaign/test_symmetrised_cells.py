"""Symmetrised cells of a campaign and of a screening: caught up with, and paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hullward.agents.campaign import run, runner
from hullward.agents.campaign.screen_file import describe, screen_file
from hullward.agents.followup import after_judging
from hullward.agents.settings import Campaign, parse_settings, read_machine
from hullward.agents.workspace import open_workspace
from hullward.models.crystal import Crystal
from hullward.tools.records import Relaxation, SymmetrisedCell
from hullward.tools.relax import Executor
from hullward.tools.store import Store


def rattled_oxide(path: Path) -> Path:
    """A cell of a tetragonal oxide that is new to the toy potential's world, disturbed."""
    rng = np.random.default_rng(2)
    sites = [[0, 0, k / 3] for k in range(3)] + [[0.5, 0.5, (k + 0.5) / 3] for k in range(3)]
    lattice = np.diag([2.6, 2.6, 7.8]) + rng.normal(0, 0.02, (3, 3))
    moved = np.array(sites) + rng.normal(0, 0.02, (6, 3)) @ np.linalg.inv(lattice)
    crystal = Crystal.from_arrays(lattice, ["Li", "Mn", "Mn", "O", "O", "O"], moved)
    path.write_text(json.dumps({"structure": crystal.model_dump(mode="json")}) + "\n")
    return path


def cells(directory: Path) -> dict[str, SymmetrisedCell]:
    with Store.open(directory, command="test") as store:
        return {one.relaxation_id: one for one in store.load(SymmetrisedCell)}


def test_a_screening_of_an_earlier_version_catches_up_and_computes_nothing_twice(
    toy_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rattled_oxide(tmp_path / "oxide.jsonl")
    asked = {key: toy_settings[key] for key in ("potential", "reference")}
    settings = describe(path, **asked, protocol={"fmax_ev_per_a": 0.4, "max_steps": 200})
    directory = tmp_path / "s"
    with monkeypatch.context() as earlier:
        earlier.setattr(after_judging, "symmetrise_candidates", lambda screen: None)
        screen_file(directory, path, settings, workers=0)
    assert cells(directory) == {}
    screen_file(directory, path, settings, workers=0)
    found = cells(directory)
    assert {(one.space_group, one.accepted) for one in found.values()} == {(123, True)}
    monkeypatch.setattr(Executor, "relax", lambda *_: pytest.fail("computed again"))
    screen_file(directory, path, settings, workers=0)
    assert cells(directory) == found


@pytest.fixture(scope="module")
def finished(
    toy_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Campaign]:
    """A small campaign that has ended."""
    changes = {
        "operators": ["perturbation", "swap"],
        "budget": {"cycles": 1, "proposals_per_cycle": 3},
        "relax_known": True,
    }
    campaign = parse_settings(Campaign, toy_settings | changes, "test")
    directory = tmp_path_factory.mktemp("finished") / "c"
    run(directory, campaign)
    return directory, campaign


def test_a_campaign_that_has_ended_is_looked_at_once_more(
    finished: tuple[Path, Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(runner, "symmetrise_candidates", asked.append)
    run(finished[0], None)
    assert len(asked) == 1


def test_their_force_calls_count_against_the_budget(finished: tuple[Path, Campaign]) -> None:
    directory, campaign = finished
    with Store.open(directory, command="test") as store:
        relaxations = store.load(Relaxation)
        first = relaxations[0]
        cell = SymmetrisedCell(
            relaxation_id=first.relaxation_id, candidate_id=first.candidate_id, tolerance_a=0.1,
            space_group=221, accepted=False, reason="x", max_displacement_a=0.0,
            energy_ev_per_atom=0.0, higher_ev_per_atom=1.0, residual_force_ev_per_a=0.0,
            crystal=first.crystal, force_calls=7,
        )  # fmt: skip
        store.add([cell])
    total = sum(one.force_calls for one in relaxations) + 7
    for limit, over in ((total, True), (total + 1, False)):
        limits = campaign.budget.model_copy(update={"cycles": 2, "force_calls": limit})
        workspace = open_workspace(directory, read_machine(), command="test")
        workspace.spending.campaign = campaign.model_copy(update={"budget": limits})
        why = workspace.spending.reason_to_stop(1)
        workspace.close()
        assert (why == f"{total} force calls spent") == over, why
