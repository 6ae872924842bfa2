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
    """The phrase for a new prototype is another one since 0.1.0; its first words stay."""
    for row in rows:
        row["novelty"] = re.sub("(new prototype): .*", r"\1", row["novelty"] or "")
    return rows


EXPECTED = in_newer_words(json.loads((EARLIER / "results.json").read_text()))
COLUMNS = ", ".join(EXPECTED[0])


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
    assert table(directory) == approximately(EXPECTED, 1e-12)


def test_an_interrupted_one_goes_on_to_the_same_table(tmp_path, journal):
    """The rest is proposed and relaxed here, by the same rules, seeds and ids."""
    directory = written_to(tmp_path / "c", journal[:CYCLE_TWO])
    hullward("resume", directory, "--workers", "1")
    assert table(directory) == approximately(EXPECTED, 1e-3)
