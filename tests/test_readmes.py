"""What the READMEs promise is there: commands, options, modules, paths, settings, code.

Commands are parsed by the real command line without being run. A few cheap ones are run as they
are written, in a folder that holds a small campaign in the toy potential's world.
"""

import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from hullward.agents.cli.app import app
from hullward.agents.settings import (
    Backend,
    Campaign,
    CrystalBackend,
    Machine,
    Phonons,
    SecondOpinionSettings,
    read_campaign,
)
from hullward.agents.settings.campaign import Budget
from hullward.tools.records import Protocol

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "data", "models", "tests", "tools", "training", "ui")
READMES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), ROOT / "data/nano_cif/README.md"]
LONGEST_README = 200  # lines

COMMAND_LINE = typer.main.get_command(app)
SHELL_WORDS = {"cd", "export", "git", "pip"}  # not ours to check
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CAMPAIGN = "campaigns/li-mn-o"  # the directory that the examples use


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(readme: Path, language: str) -> list[str]:
    text = readme.read_text(encoding="utf-8")
    return [body for word, body in BLOCK.findall(text) if word == language]


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block as words; a quoted argument may span lines."""
    found, rest = [], ""
    for line in block.splitlines():
        rest += line
        try:
            words = shlex.split(rest.removesuffix("\\"), comments=True)
        except ValueError:  # a quotation goes on in the next line
            rest += "\n"
            continue
        if rest.endswith("\\"):
            rest = rest.removesuffix("\\") + " "
            continue
        rest = ""
        while words:
            end = next((i for i, w in enumerate(words) if w in ("&&", "|", ";")), len(words))
            found.append(words[:end])
            words = words[end + 1 :]
    assert not rest, f"unfinished: {rest}"
    return [words for words in found if words]


INDENTED = re.compile(r"^    ((?:hullward|python|make) .*)$", re.MULTILINE)
COMMANDS = [
    (readme, words)
    for readme in READMES
    for block in [*blocks(readme, "sh"), "\n".join(INDENTED.findall(readme.read_text()))]
    for words in commands(block)
]
every_readme = pytest.mark.parametrize("readme", READMES, ids=name_of)


def trouble_of(words: list[str]) -> str:
    """What is wrong with one command; '' where it is valid."""
    program, *arguments = words
    while re.fullmatch(r"\w+=.*", program) and arguments:  # a variable before the command
        program, *arguments = arguments
    program = program.removeprefix(".venv/bin/")
    if program == "hullward":
        return hullward_trouble(arguments)
    if program in ("python", "pytest"):
        return python_trouble(program, arguments)
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        missing = {a for a in arguments if "=" not in a and not a.startswith("-")} - targets
        return f"no make target {', '.join(sorted(missing))}" if missing else ""
    if program.startswith("."):
        return "" if (ROOT / program).is_file() else "no such script"
    return "" if program in SHELL_WORDS else f"unknown program {program!r}"


def hullward_trouble(arguments: list[str]) -> str:
    """What the real command line finds wrong with these arguments; nothing is run."""
    if arguments[0].startswith("-"):  # making a context would act on --install-completion
        known = {option for parameter in COMMAND_LINE.params for option in parameter.opts}
        return "" if {"--help", "-h", *known}.issuperset(arguments) else f"no option {arguments[0]}"
    command, context = COMMAND_LINE, COMMAND_LINE.make_context("hullward", arguments[:1])
    try:
        while hasattr(command, "resolve_command"):
            _, command, arguments = command.resolve_command(context, arguments)
            is_group = hasattr(command, "resolve_command")
            own = arguments[:1] if is_group else arguments
            context = command.make_context(command.name, own, parent=context)
    except SystemExit:  # --help
        return ""
    except Exception as error:  # typer does not make its parser's errors public
        return getattr(error, "message", "") or str(error) or type(error).__name__
    return ""


def python_trouble(program: str, arguments: list[str]) -> str:
    if program == "python" and arguments[:1] == ["-m"]:
        program, *arguments = arguments[1:]
        if program.startswith("hullward."):
            path = ROOT / Path(*program.split(".")[1:])
            path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            if not path.is_file() or '__name__ == "__main__"' not in path.read_text():
                return f"python -m {program} does not run"
            return ""
    paths = [a.partition("::")[0] for a in arguments if re.match(r"(tests|data)/", a)]
    return ", ".join(f"no file {path}" for path in paths if not (ROOT / path).exists())


def test_every_command_is_valid() -> None:
    assert len(COMMANDS) > 60
    wrong = [
        f"{name_of(readme)}: {shlex.join(words)}: {trouble}"
        for readme, words in COMMANDS
        if (trouble := trouble_of(words))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("hullward run a.yaml --dir b", ""),
        ("hullward reference show Li-O --all", ""),
        ("hullward status DIR && hullward query DIR 'SELECT 1\nLIMIT 2'  # why", ""),
        ("hullward screen a \\\n    --dir b", ""),
        ("hullward flee a", "flee"),
        ("hullward reference flee a", "flee"),
        ("hullward run", "campaign"),
        ("hullward run a b", "b"),
        ("hullward --help", ""),
        ("hullward --install-nothing", "no option"),
        ("hullward run a --fast", "--fast"),
        ("hullward query a 'SELECT 1' --limit many", "integer"),
        (f"python -m {'hullward'}.nothing", "does not run"),
        ("python tests/benchmarks/nothing.py", "no file"),
        ("make nothing", "nothing"),
        ("frobnicate", "unknown program"),
    ],
)
def test_the_check_of_commands_sees_what_is_wrong(line: str, trouble: str) -> None:
    found = "; ".join(filter(None, map(trouble_of, commands(line))))
    assert trouble in found
    assert bool(found) == bool(trouble), found


def command_names(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """('run',), ('reference', 'list'), …"""
    inner = getattr(command, "commands", None)
    if inner is None:
        return [path]
    return [name for word, below in inner.items() for name in command_names(below, (*path, word))]


def test_every_command_is_described() -> None:
    shown = [tuple(words[1:]) for _, words in COMMANDS if words[0] == "hullward"]
    missing = [
        name
        for name in command_names(COMMAND_LINE)
        if not any(words[: len(name)] == name for words in shown)
    ]
    assert missing == []


def test_every_key_and_variable_is_described() -> None:
    text = (ROOT / "agents" / "README.md").read_text(encoding="utf-8")
    settings = (Campaign, Budget, Phonons, SecondOpinionSettings, CrystalBackend, Backend, Protocol)
    keys = {key for model in settings for key in model.model_fields} - {"word"}
    variables = {f"HULLWARD_{name.upper()}" for name in Machine.model_fields}
    described = set(re.findall(r"[`{,] ?(\w+)", text))
    assert (keys | variables) - described == set()


@every_readme
def test_readmes_stay_short(readme: Path) -> None:
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@every_readme
def test_paths_and_links_lead_somewhere(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    wrong = []
    for path in re.findall(r"`([\w./-]+)`", text):
        ours = path.split("/")[0] in {*ROOMS, ".scripts", ".ci"} and "/" in path
        if not ours and not path.endswith(".py"):
            continue
        there = (ROOT / path).exists() or (readme.parent / path).exists()
        if not there and ("/" in path or not list(readme.parent.rglob(path))):
            wrong.append(path)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue
        file = readme.parent / path if path else readme
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def anchors(readme: Path) -> set[str]:
    """What GitHub calls the headings."""
    headings = re.findall(r"^#+ (.*)$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_names_in_where_do_i_change_are_there() -> None:
    """`package/module.py`: `name` in that table: the module holds the name."""
    text = (ROOT / "tools" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`: `(\w+)", text)
    named += [(path, name) for name, path in re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)]
    assert len(named) > 4
    for path, name in named:
        folder = ROOT if (ROOT / path).exists() else ROOT / "tools"
        assert re.search(rf"\b{name}\b", (folder / path).read_text(encoding="utf-8")), (path, name)


@every_readme
def test_settings_in_readmes_are_valid(readme: Path, tmp_path: Path) -> None:
    """A block of YAML is a campaign file, or keys to add to the example of one."""
    example = yaml.safe_load((ROOT / "data/campaigns/li-mn-o.yaml").read_text(encoding="utf-8"))
    for block in blocks(readme, "yaml"):
        given = yaml.safe_load(block)
        path = tmp_path / "campaign.yaml"
        path.write_text(yaml.safe_dump(given if "name" in given else example | given))
        read_campaign(path)


@pytest.fixture(scope="module")
def place(
    toy_settings: dict[str, Any], toy_reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the files that the examples name, in the toy world, and a finished campaign."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data" / "campaigns").mkdir(parents=True)
    settings = toy_settings | {"budget": {"cycles": 1, "proposals_per_cycle": 9}, "name": "li-mn-o"}
    (folder / "data/campaigns/li-mn-o.yaml").write_text(yaml.safe_dump(settings))
    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    pd.DataFrame(
        {
            "lengths": [[3.1, 3.1, 3.1]],
            "angles": [[90, 90, 90]],
            "species": [["Li", "Mn"]],
            "coords": [half],
        }
    ).to_parquet(folder / "generated.parquet")
    table = pd.DataFrame({"formula": ["Li", "Mn", "O"], "energy_per_atom": [-1.0, -1.0, -1.0]})
    table.to_csv(folder / "my_hull.csv", index=False)
    sidecar = toy_reference.with_name("toy.reference.json").read_text()
    (folder / "my_hull.reference.json").write_text(sidecar)
    pd.DataFrame({"formula": ["LiMnO2"], "energy_per_atom": [-6.0]}).to_csv(
        folder / "energies.csv", index=False
    )
    return folder


TOY = ["--potential", "toy", "--workers", "0"]
RUN = {  # a pattern of commands as written: what is added to them here
    "hullward run data/campaigns/*": [],
    f"hullward status {CAMPAIGN}": [],
    f"hullward report {CAMPAIGN}": [],
    f"hullward rebuild {CAMPAIGN}": [],
    f"hullward query {CAMPAIGN} *": [],
    f"hullward export {CAMPAIGN} *": [],
    f"hullward stop {CAMPAIGN}": [],
    "hullward screen generated.parquet * --reference file:my_hull.csv*": TOY,
    "hullward hull energies.csv --reference embedded*": [],
    "hullward reference list": [],
    "hullward propose --operator substitution *": [],
    "hullward evaluate calibration": [],
}


def test_cheap_commands_do_what_readmes_promise(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the table: the campaign is run before it is asked."""
    monkeypatch.chdir(place)
    for pattern, more in RUN.items():
        written = {tuple(words) for _, words in COMMANDS if fnmatchcase(shlex.join(words), pattern)}
        assert written, f"no README shows `{pattern}`"
        for words in sorted(written):
            result = CliRunner().invoke(app, [*words[1:], *more])
            assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
    assert (place / CAMPAIGN / "report" / "report.html").is_file()
    for readme in READMES:
        namespace: dict[str, Any] = {}
        for block in blocks(readme, "python"):
            exec(compile(block, name_of(readme), "exec"), namespace)
