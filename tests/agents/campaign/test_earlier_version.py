"""A campaign directory that version 0.1.0 wrote is opened, resumed and judged again.

`earlier/` holds the journal of a campaign of 16 proposals and the table that 0.1.0 made of it.
"""

import json
import re
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.tools.store import open_snapshot

EARLIER = Path(__file__).parent / "earlier"
CYCLE_TWO = 85  # lines of the journal: cycle 0 is complete, of cycle 1 nothing is relaxed


def hullward(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def journal() -> list[bytes]:
    content = (
        zstandard.ZstdDecompressor()
        .decompressobj()
        .decompress((EARLIER / "journal.jsonl.zst").read_bytes())
    )
    return content.splitlines(keepends=True)


def table(directory: Path) -> list[dict[str, object]]:
    with open_snapshot(directory) as connection:
        rows = connection.sql(f"SELECT {COLUMNS} FROM results ORDER BY proposal_id").to_df()
    return in_newer_words(json.loads(rows.to_json(orient="records", double_precision=15)))


def in_newer_words(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Phrases that are others since 0.1.0: of new prototypes the first words stay."""
    for row in rows:
        words = re.sub("(new prototype): .*", r"\1", row["novelty"] or "")
        row["novelty"] = words.replace("same as earlier candidate", "same as candidate")
    return rows


EXPECTED = in_newer_words(json.loads((EARLIER / "results.json").read_text()))
COLUMNS = ", ".join(EXPECTED[0])


def next_to_the_index(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """LiMn is a known compound, of which the index of known structures holds no structure."""
    found = [row | {"novel": False} if row["formula"] == "LiMn" else row for row in rows]
    for row in found:
        if row["formula"] == "LiMn" and str(row["novelty"]).startswith("same prototype"):
            row["novelty"] = f"{row['novelty']}; known compound whose structure is not at hand"
    return found


def approximately(rows: list[dict[str, object]], ev_per_atom: float) -> list[dict[str, object]]:
    return [
        {
            name: pytest.approx(value, abs=ev_per_atom) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def written_to(directory: Path, lines: list[bytes]) -> Path:
    directory.mkdir()
    (directory / "journal.jsonl").write_bytes(b"".join(lines))
    return directory


def test_it_is_rebuilt_to_the_same_table(tmp_path, journal):
    directory = written_to(tmp_path / "c", journal)
    hullward("rebuild", directory)
    assert table(directory) == approximately(EXPECTED, 1e-12)
    hullward("report", directory)


def test_it_is_judged_again_to_the_same_table(tmp_path, journal):
    directory = written_to(tmp_path / "c", journal)
    hullward("rebuild", directory)
    hullward("rejudge", directory, "--reference", "embedded")
    assert table(directory) == approximately(next_to_the_index(EXPECTED), 1e-12)


def test_an_interrupted_one_goes_on_to_the_same_table(tmp_path, journal):
    """The rest is proposed and relaxed here, by the same rules, seeds and ids.

    What is judged here and not there is stable within 1 meV/atom.
    """
    directory = written_to(tmp_path / "c", journal[:CYCLE_TWO])
    hullward("resume", directory, "--workers", "1")
    expected = [
        row | {"label": "stable"}
        if row["cycle"] == 1 and row["label"] == "metastable" and height(row) < 1e-3
        else row
        for row in next_to_the_index(EXPECTED)
    ]
    assert table(directory) == approximately(expected, 1e-3)


def height(row: dict[str, object]) -> float:
    found = row["e_above_union_ev_per_atom"]
    assert isinstance(found, float)
    return found
