"""The rooms, the directions between them, and what importing them may do."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "data", "models", "tools", "training", "ui")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LONGEST = 350  # lines; a module that outgrows it wants to be two

# What each room may import beside itself. Nothing imports ui.
DOORS = {
    "data": set(),
    "models": {"data"},
    "tools": {"models", "data"},
    "training": {"tools", "models", "data"},
    "agents": {"tools", "models", "data", "training"},  # training: one function at most, see below
    "ui": {"agents", "tools", "models", "data"},
}

# Who may touch the environment at all. Nothing but the settings decides anything by it.
READS_THE_ENVIRONMENT = {"agents/settings/campaign.py"}
PREPARES_CHILDREN = {  # copies or sets variables for a process it starts
    "tools/crystal/files/cif.py",
    "tools/relax/workers.py",
}

HEAVY = ("torch", "chgnet", "pymatgen", "transformers", "streamlit", "vllm", "matplotlib", "ray")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    return path.relative_to(ROOT).parts[0]


def dotted(path):
    parts = ("hullward", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def imports_of(tree):
    """(module, imported name or None) of every import, wherever it stands; relative ones as '.'."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (
                (a.value, None)
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def rooms_entered(tree):
    """The rooms a module imports from, by any spelling of the import."""
    for module, name in imports_of(tree):
        parts = [*module.split("."), *([name] if name else [])]
        if parts[0] == "hullward" and len(parts) > 1:
            yield parts[1]


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


@every_module
def test_rooms_import_only_downwards(path):
    room = room_of(path)
    wrong = set(rooms_entered(tree_of(path))) - DOORS[room] - {room}
    assert not wrong, f"{name_of(path)}: {room} may not import {', '.join(sorted(wrong))}"


@every_module
def test_rooms_are_imported_under_their_full_name(path):
    wrong = [m for m, _ in imports_of(tree_of(path)) if m.split(".")[0] in ROOMS or m[:1] == "."]
    assert not wrong, f"{name_of(path)}: write hullward.{wrong[0].lstrip('.')}"


def test_agents_reach_training_through_one_function_at_most():
    doors = {
        (module, name)
        for path in MODULES
        if room_of(path) == "agents"
        for module, name in imports_of(tree_of(path))
        if module.startswith("hullward.training") or (module, name) == ("hullward", "training")
    }
    assert len(doors) <= 1, f"agents use {len(doors)} things of training: {sorted(doors)}"
    assert all(name and module != "hullward" for module, name in doors), "import the function"


@every_module
def test_modules_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name_of(path)} has {lines} lines; {LONGEST} are allowed"


def environment_uses(tree):
    """Lines of every way to read or change the environment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            home = node.attr == "home" and getattr(node.value, "id", "") == "Path"
            if home or node.attr in {"environ", "environb", "getenv", "putenv"}:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in {"os", "pydantic_settings"}:
            hidden = {"environ", "environb", "getenv", "putenv", "BaseSettings"}
            yield from (node.lineno for alias in node.names if alias.name in hidden)
        elif isinstance(node, ast.keyword) and node.arg == "envvar":  # typer's own reader
            yield node.value.lineno


@every_module
def test_one_module_reads_the_environment(path):
    if name_of(path) in READS_THE_ENVIRONMENT | PREPARES_CHILDREN:
        return
    wrong = [f"{name_of(path)}:{line}" for line in environment_uses(tree_of(path))]
    assert not wrong, f"only agents/settings/campaign.py reads the environment: {', '.join(wrong)}"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ['A']",
        "import os\nos.environ['A'] = '1'",
        "import os\ndict(os.environ)",
        "import os as o\no.getenv('A')",
        "from os import path, environ",
        "from pydantic_settings import BaseSettings",
        "from pathlib import Path\nPath.home()",
        "option(\nenvvar='A')",
    ],
)
def test_the_environment_check_sees_every_way_in(code):
    assert list(environment_uses(ast.parse(code))) == [code.count("\n") + 1]


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import hullward.ui.app", {"ui"}),
        ("from hullward import ui", {"ui"}),
        ("from hullward.ui import app", {"ui"}),
        ("def f():\n    from hullward.ui.app import main", {"ui"}),
        ("import importlib\nimportlib.import_module('hullward.ui.app')", {"ui"}),
        ("import os, json", set()),
    ],
)
def test_the_direction_check_sees_every_way_in(code, rooms):
    assert set(rooms_entered(ast.parse(code))) == rooms


LOOK_AFTER_IMPORTING = """
import importlib, json, logging, sys, threading
acts = []
def watch(event, arguments):
    if event in {"socket.connect", "subprocess.Popen", "os.system", "os.putenv"}:
        acts.append(f"{event} {arguments[:1]}")
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
json.dump({
    "acts": acts,
    "handlers": [str(handler) for handler in logging.getLogger().handlers],
    "threads": [thread.name for thread in threading.enumerate()],
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}, sys.stdout)
"""


def import_elsewhere(names, folder):
    """Import modules in a fresh interpreter that knows no other folder than this one."""
    here = str(folder)
    environment = os.environ | {
        "HOME": here,
        "TMPDIR": here,
        "XDG_CACHE_HOME": here,
        "XDG_CONFIG_HOME": here,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_MAIN_FREE": "1",  # numpy sets it on import where it is missing
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK_AFTER_IMPORTING, *names],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_importing_every_module_does_nothing(tmp_path):
    after = import_elsewhere([dotted(path) for path in MODULES], tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == []
    assert after["acts"] == []
    assert after["handlers"] == []
    assert after["threads"] == ["MainThread"]


def test_the_command_line_starts_without_the_heavy_libraries(tmp_path):
    after = import_elsewhere(["hullward.agents.cli.app"], tmp_path)
    assert sorted(set(HEAVY) & set(after["modules"])) == []
