"""LLaMat-2-CIF's own outputs through the whole loop, as a recording, with a scripted planner."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.campaign import run
from hullward.agents.settings import Campaign, parse_settings
from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.crystal.text import parse_cell_text, read_completion
from hullward.tools.records import (
    Flaw,
    ModelAnswer,
    ModelFailure,
    ModelRequest,
    Plan,
    Proposal,
    Protocol,
)
from hullward.tools.relax.stream import relax_one
from hullward.tools.screening import check_crystal
from hullward.tools.store import Store, funnel, open_snapshot

PALETTE = ("Li", "Na", "K", "Mg", "O", "S", "Cl")
PROPOSALS = 16
SPOILT = 6  # of these, in the ways in which models spoil them


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[tuple[str, str]]:
    """(text, finish reason) of structures in the palette, the last ones spoilt."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "known" / "llamat2_generated.parquet").to_pylist()
    small = []
    for row in table:
        species = json.loads(row["species"]) or []
        if 0 < len(species) <= 8 and len(set(species)) <= 3 and set(species) <= {*PALETTE}:
            small.append(row)
    small = small[:PROPOSALS]
    said = [(_as_written(row), "stop") for row in small]
    for n in range(1, SPOILT + 1):
        text, _ = said[-n]
        said[-n] = [
            (f"{text}\n\nTitle: Crystal structure of", "length"),
            (text[: len(text) // 2], "length"),
            ("", "stop"),
            (text.replace(" ", ", "), "stop"),
            (f"The crystal is:\n{text}", "stop"),
            ("I cannot generate crystal structures.", "stop"),
        ][n - 1]
    return said


def _as_written(row: dict[str, Any]) -> str:
    """The model's own form: the table holds what its authors read from it."""
    lengths, angles = json.loads(row["lengths"]), json.loads(row["angles"])
    lines = [" ".join(f"{x:.1f}" for x in lengths), " ".join(str(int(x)) for x in angles)]
    for symbol, xyz in zip(json.loads(row["species"]), json.loads(row["coords"]), strict=True):
        lines += [symbol, " ".join(f"{x:.2f}" for x in xyz)]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def elements_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference of the palette's elements in the toy potential's world."""
    potential, lines = load_potential("toy"), []
    for symbol in PALETTE:
        cell = Crystal.from_parameters((3.0,) * 3, (90,) * 3, [symbol] * 2, [[0] * 3, [0.5] * 3])
        done = relax_one(symbol, cell, potential, Protocol(max_steps=500))
        entry = {
            "entry_id": f"toy-{symbol}",
            "composition": {symbol: 2},
            "energy": 2 * (done.energy_ev_per_atom or 0.0),
            "correction": 0.0,
            "structure": cell.to_structure().as_dict(),
        }
        lines.append(json.dumps(entry))
    path = tmp_path_factory.mktemp("elements") / "toy.jsonl"
    path.write_text("\n".join(lines) + "\n")
    sidecar = {"energy_scheme": "toy", "corrected": True, "complete": True}
    path.with_name("toy.reference.json").write_text(json.dumps(sidecar))
    return path


def campaign(folder: Path, reference: Path, texts: list[tuple[str, str]]) -> Campaign:
    """Everything recorded: what LLaMat wrote, and two plans of a chat model."""
    written = [
        {"text": text, "finish_reason": reason, "prompt_tokens": 60, "completion_tokens": len(text)}
        | {"model": "llamat-2-cif"}
        for text, reason in texts
    ]
    (folder / "llamat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    plan = {
        "formulas": ["Li2O", "UO2"],
        "quotas": [{"operator": "formula", "proposals": PROPOSALS // 2}],
        "space_groups": [],
        "reason": "Because.",
    }
    said = [json.dumps(plan), "not a plan", "still none"]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in said))
    settings = {
        "name": "recorded",
        "elements": list(PALETTE),
        "max_elements": 3,
        "min_elements": 1,
        "max_atoms": 8,
        "operators": ["formula"],
        "crystal": {
            "recorded": str(folder / "llamat.jsonl"),
            "format": "input-output",
            "samples": 2,
            "grammar": False,
        },
        "chat": {"recorded": str(folder / "chat.jsonl")},
        "potential": "toy",
        "reference": f"file:{reference}",
        "protocol": {"fmax_ev_per_a": 0.4, "max_steps": 60},
        "budget": {"cycles": 2, "proposals_per_cycle": PROPOSALS // 2},
        "workers": 0,
    }
    return parse_settings(Campaign, settings, "test")


def test_recorded_outputs_end_with_the_right_counts(
    texts: list[tuple[str, str]], elements_only: Path, tmp_path: Path
) -> None:
    """Judged one by one, without the loop, they come to the same."""
    asked = campaign(tmp_path, elements_only, texts)
    run(tmp_path / "c", asked)
    reasons: Counter[str] = Counter()
    valid = []
    for text, finish_reason in texts:
        reading = read_completion(text, finish_reason)
        crystal = reading.flaw or parse_cell_text(reading.raw)
        if isinstance(crystal, Flaw):
            reasons[crystal.reason] += 1
            continue
        facts = check_crystal(crystal, asked.limits(), load_potential("toy").card.elements)
        if isinstance(facts, Flaw):
            reasons[facts.reason] += 1
        else:
            valid.append(crystal.content_id)
    with open_snapshot(tmp_path / "c") as connection:
        counting = funnel.verify(connection)
    assert counting.proposed == PROPOSALS
    assert counting.rejections == reasons
    assert reasons["prose"] == reasons["empty"] == reasons["truncated"] == 1
    assert counting.funnel["valid"] == len(valid) > PROPOSALS // 4
    assert counting.states["pending"] == 0
    with Store.open(tmp_path / "c", command="test") as store:
        answers = store.load(ModelAnswer)
        requests = store.load(ModelRequest)
        plans = store.load(Plan)
        proposals = store.load(Proposal)
        assert not store.load(ModelFailure)
    assert {a.text for a in answers if a.model == "llamat-2-cif"} == {t for t, _ in texts}
    assert {r.form for r in requests if r.backend == "crystal"} == {"input-output"}
    assert [p.made_by for p in plans] == ["recorded:chat.jsonl", "rules"]
    assert plans[0].dropped == {"elements": 1}
    assert all(p.model == "llamat-2-cif" and p.prompt_tokens == 60 for p in proposals)
    report = json.loads((tmp_path / "c" / "report" / "report.json").read_text())
    assert "which gave no usable plan in 1 of 2 cycles" in report["backends"]
    tokens = {use["purpose"]: use["completion_tokens"] for use in report["asked"]}
    assert tokens["formula"] == sum(len(text) for text, _ in texts)


@pytest.mark.slow
def test_a_recording_goes_on_where_a_killed_run_stopped(
    texts: list[tuple[str, str]], elements_only: Path, tmp_path: Path
) -> None:
    asked = campaign(tmp_path, elements_only, texts)
    run(tmp_path / "whole", asked)
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    said = [n for n, line in enumerate(lines) if '"kind":"ModelAnswer"' in line]
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "journal.jsonl").write_text("".join(lines[: said[len(said) // 2] + 1]))
    run(tmp_path / "cut", asked)
    tables = []
    for name in ("whole", "cut"):
        with open_snapshot(tmp_path / name) as connection:
            query = "SELECT proposal_id, candidate_id, raw, model FROM proposals ORDER BY 1"
            tables.append(connection.execute(query).fetchall())
    assert tables[0] == tables[1]
    assert len(tables[0]) == PROPOSALS
