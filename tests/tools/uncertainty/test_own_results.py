"""The user's own DFT results: refused where the unit is wrong, corrected, forgotten."""

import json
from pathlib import Path

import pytest

from hullward.agents.followup import kept_results
from hullward.models.errors import InputError
from hullward.tools.uncertainty import (
    OwnDftResult,
    calibrators_folder,
    forget_every_result,
    forget_results,
    known_calibrators,
    read_dft_heights,
    relearnt,
    shipped,
    write_own,
)
from hullward.tools.uncertainty.calibrator import read_calibrator


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("c-1,50", "t.csv, line 2: dft_e_above_hull_ev_per_atom 50 of c-1 is more than 2 eV/atom"),
        ("c-1,0.1\nc-2,-3.5", "line 3: .* -3.5 of c-2 .* meV?"),
        ("c-1,0.1\nc-1,0.2", "line 3: 0.2 eV/atom for c-1, which has 0.1 in t.csv, line 2"),
        ("c-1,low", "t.csv: dft_e_above_hull_ev_per_atom: .*low"),
    ],
)
def test_a_table_of_results_is_refused_with_its_line(rows: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"candidate_id,dft_e_above_hull_ev_per_atom\n{rows}\n")
    with pytest.raises(InputError, match=told):
        read_dft_heights(path)


def test_results_of_an_earlier_version_are_only_forgotten_together(tmp_path: Path) -> None:
    there = shipped()
    old = there.changed(name=f"{there.name}-own", seen=("c-old",), rows=there.rows + 1)
    calibrators_folder(tmp_path).mkdir()
    path = calibrators_folder(tmp_path) / f"{old.name}.json"
    fields = old.model_dump(mode="json", exclude={"base", "results"})  # which it did not write
    path.write_text(json.dumps(fields))
    assert read_calibrator(path).calibrator_id == old.calibrator_id
    result = OwnDftResult(
        candidate_id="c-new", formula="LiF", dft_ev_per_atom=0.1, height_ev_per_atom=0.05,
        state=dict.fromkeys(there.state, 0.0), amounts={"Li": 1.0, "F": 1.0},
        source="t.csv, line 2", campaign="s", since="2026-01-01",
    )  # fmt: skip
    write_own(relearnt(read_calibrator(path), {"c-new": result}), tmp_path)
    assert kept_results(tmp_path)[0] == [result]
    assert "1 more, learnt by a version that kept no values" in kept_results(tmp_path)[1][0]
    forget_results(tmp_path, ["c-new"])
    assert read_calibrator(path).seen == ("c-old",)
    forget_every_result(tmp_path)
    assert [c.name for c in known_calibrators(tmp_path)] == [there.name]
