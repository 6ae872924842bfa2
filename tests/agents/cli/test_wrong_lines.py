"""Wrong command lines: one line that names what, where and how to mend it; nothing is left."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hullward.agents.cli import app as entry

NO_CAMPAIGN = "nothing does not exist; `hullward run` and `hullward screen` create one"
FILES = {
    "xx.yaml": "name: a\nsystems: [Li-Xx-O]\n",
    "mm.yaml": "name: a\nsystems: [Li-Mm-O]\n",
    "spaces.yaml": "name: a\nsystems: [Li Mn O]\n",
    "formula.yaml": "name: a\nsystems: [LiMnO2]\n",
    "operator.yaml": "name: a\nsystems: [Li-O]\noperators: [substitutions]\n",
    "fermium.yaml": "name: a\nsystems: [Fm-O]\n",
    "key.yaml": "name: a\nsystem: [Li-O]\n",
    "reference.yaml": "name: a\nsystems: [Li-O]\nreference: embeded\n",
    "potential.yaml": "name: a\nsystems: [Li-O]\npotential: chgnt-0.3.0\n",
    "state.yaml": "name: a\nsystems: [Li-O]\noxidation_states: {Li: [11]}\n",
    "text": "words\n",
    "one.jsonl": '{"lengths":[3,3,3],"angles":[90,90,90],"species":["Li"],"coords":[[0,0,0]]}\n',
    "mev.csv": "candidate_id,dft_e_above_hull_ev_per_atom\nc-1,0.02\nc-2,50\n",
}  # fmt: skip
WRONG = [
    (
        "run folder",
        2,
        "folder is a folder: name a campaign file in it, or go on with what it holds",
    ),
    ("run nothing.yaml", 2, "nothing.yaml does not exist"),
    ("run text", 2, "line 1: expected `key: value` lines"),
    ("run xx.yaml", 2, "line 2: `systems`: 'Xx' is not an element; did you mean Xe?"),
    ("run mm.yaml", 2, "'Mm' is not an element; did you mean Mn?"),
    ("run spaces.yaml", 2, "did you mean the system Li-Mn-O?"),
    ("run formula.yaml", 2, "did you mean the system Li-Mn-O?"),
    ("run operator.yaml", 2, "'substitutions' is not known; did you mean substitution?"),
    ("run fermium.yaml", 3, "potential chgnet-0.3.0 has no parameters for Fm"),
    ("run key.yaml", 2, "line 2: unknown key `system`; did you mean `systems`?"),
    ("run reference.yaml", 2, "unknown reference 'embeded'; "),
    ("run potential.yaml", 2, "no potential is called 'chgnt-0.3.0'; did you mean 'chgnet-0.3.0'?"),
    ("run state.yaml", 2, "line 3: `oxidation_states`: Li has no oxidation state 11"),
    ("run one.jsonl --dir /proc/x", 2, "one.jsonl"),
    ("resume nothing", 2, NO_CAMPAIGN),
    ("resume folder", 2, "folder holds no campaign"),
    ("status nothing", 2, NO_CAMPAIGN),
    ("status text", 2, "text is not a directory"),
    ("stop nothing", 2, NO_CAMPAIGN),
    ("report nothing", 2, NO_CAMPAIGN),
    ("rebuild nothing", 2, NO_CAMPAIGN),
    ("query nothing SELECT", 2, NO_CAMPAIGN),
    ("export nothing --out out", 2, NO_CAMPAIGN),
    ("opinion nothing", 2, NO_CAMPAIGN),
    ("phonons nothing", 2, NO_CAMPAIGN),
    ("audit folder", 2, "folder holds no campaign"),
    ("rejudge nothing --reference embedded", 2, NO_CAMPAIGN),
    ("screen nothing.cif --dir s", 2, "input nothing.cif does not exist"),
    ("screen folder --dir s", 2, "folder contains no CIF and no POSCAR"),
    ("screen text --dir s", 2, "unknown kind of file"),
    ("screen one.jsonl --dir text", 2, "text is not a directory"),
    ("screen one.jsonl --dir text/s", 2, "a part of this path is a file, not a folder"),
    ("screen one.jsonl --dir /proc/x", 2, "/proc/x cannot be written: its folder does not exist"),
    ("screen one.jsonl --dir s --reference file:no.csv", 2, "no reference file at "),
    ("screen one.jsonl --dir s --potential chgnet", 2, "did you mean 'chgnet-0.3.0'?"),
    ("relax nothing.cif", 2, "nothing.cif does not exist"),
    ("relax one.jsonl --out folder", 2, "folder is a folder; name a file in it"),
    ("relax one.jsonl --out no/x.json", 2, "no/x.json: the folder no does not exist"),
    ("relax one.jsonl --optimizer bgfs", 2, "'bgfs' is not known; did you mean bfgs?"),
    ("hull nothing.csv", 2, "no file at nothing.csv"),
    ("hull text", 2, "cannot read text: known endings are"),
    ("hull one.jsonl --open O", 2, "--open 'O': write ELEMENT=EV_PER_ATOM"),
    ("reference show Li-Xx-O", 2, "'Xx' is no element; did you mean Xe?"),
    ("reference show Li,Mn,O", 2, "did you mean the system Li-Mn-O?"),
    ("reference show Li-O --reference built:none", 2, "unknown reference 'built:none'"),
    ("reference fetch", 2, "nothing to fetch: name systems"),
    ("reference build Li-Xx --name t", 2, "'Xx' is no element"),
    ("reference build Li-O --name Bad!", 2, "use small letters, digits and hyphens"),
    ("reference import nothing.csv --name x", 2, "no reference file at nothing.csv"),
    ("propose --operator formula", 2, "the operator formula needs --formula"),
    ("propose --operator formula --formula NaXx", 2, "'Xx' is no element"),
    ("propose --operator elements --elements Na-Xx", 2, "'Xx' is no element"),
    ("calibrate", 2, "calibrate needs one of: a table of RESULTS"),
    ("calibrate mev.csv", 2, "name the campaign of these candidates: --dir DIR"),
    ("calibrate mev.csv --dir folder", 2, "mev.csv, line 3: dft_e_above_hull_ev_per_atom 50 of"),
    ("calibrate --forget c-1", 2, "no DFT result of c-1 is kept"),
    ("evaluate crystals nothing.jsonl", 2, "nothing.jsonl does not exist"),
    ("evaluate crystals nano --save folder", 2, "folder is a folder; name a file in it"),
    ("evaluate calibration mev.csv --write no/c.json", 2, "the folder no does not exist"),
    ("probe --url nowhere --model m", 2, "`url` begins with http"),
]


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str], tuple[int, str, str]]:
    """Exit code, stdout and stderr of a command in a folder that holds FILES and one folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hullward", *line.split()])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize(("line", "code", "told"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_line_is_explained_in_one(
    line: str, code: int, told: str, shell: Callable[[str], tuple[int, str, str]]
) -> None:
    found, out, err = shell(line)
    assert (found, out) == (code, "")
    last = err.splitlines()[-1]
    assert last.startswith("hullward: ")
    assert told in last
    assert "Errno" not in err
    assert sorted(os.listdir()) == sorted([*FILES, "folder"])  # no directory of a failed start


def test_the_version_is_printed(shell: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = shell("--version")
    assert (code, err) == (0, "")
    assert out.startswith("hullward ")
