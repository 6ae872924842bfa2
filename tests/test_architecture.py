"""The shape of the project: what imports what, faces, sizes, names, and what importing may do.

`FLOORS` gives for every package what else of the project it may import. A new package adds one
line there.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "data", "models", "tools", "training", "ui")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))

LONGEST_MODULE = 400  # lines; a module is split where two purposes part, never to pass this
LONGEST_FUNCTION = 60  # lines
LARGEST_PACKAGE = 15  # modules, the face not counted
MOST_TOOLS = 12  # packages in tools/

GROUND = {"data", "models"}  # models: errors, formulas, crystal, wyckoff
CRYSTALS = {
    "tools.records",
    "tools.crystal",
    "tools.crystal.text",
    "tools.crystal.files",
    "tools.crystal.stoichiometry",
    "tools.crystal.identity",
}
LANGUAGE = {"models.language", "models.serving"}
REFERENCES = {
    "tools.reference",
    "tools.reference.sources",
    "tools.reference.materials_project",
    "tools.reference.recipe",
    "tools.reference.known",
}
BELOW_SCREENING = {
    *CRYSTALS,
    *REFERENCES,
    "tools.hull",
    "tools.store",
    "tools.prototypes",
    "tools.relax",
}
TOOLS = {
    *BELOW_SCREENING,
    "tools.screening",
    "tools.screening.shortlist",
    "tools.uncertainty",
    "tools.evaluation",
    "tools.report",
    "tools.report.figures",
}

# What each package may import beside itself, the ground modules and the data.
FLOORS: dict[str, set[str]] = {
    "data": set(),
    "models": set(),
    "models.language": set(),
    "models.serving": {"models.language"},
    "models.potential": set(),
    "tools": set(),
    "tools.records": set(),
    "tools.store": {"tools.records"},
    "tools.hull": {"tools.records", "models.potential"},
    "tools.crystal": {"tools.records"},
    "tools.crystal.identity": {"tools.crystal", "tools.records"},
    "tools.crystal.stoichiometry": {"tools.crystal"},
    "tools.crystal.text": {"tools.crystal", "tools.records", "models.language"},
    "tools.crystal.files": {"tools.crystal", "tools.crystal.text", "tools.records"},
    "tools.prototypes": CRYSTALS,
    "tools.relax": {*CRYSTALS, "tools.store", "models.potential"},
    "tools.report": {*CRYSTALS, "tools.store", "tools.report.figures"},
    "tools.report.figures": {"tools.records"},
    "tools.reference.sources": {
        *CRYSTALS,
        "tools.hull",
        "tools.relax",
        "tools.prototypes",
        "tools.store",
        "models.potential",
    },
    "tools.reference.materials_project": {
        *CRYSTALS,
        "tools.hull",
        "tools.store",
        "tools.reference.sources",
        "models.potential",
    },
    "tools.reference": {
        *CRYSTALS,
        "tools.crystal.stoichiometry",
        "tools.hull",
        "tools.prototypes",
        "tools.relax",
        "tools.store",
        "models.potential",
        "tools.reference.sources",
        "tools.reference.materials_project",
        "tools.reference.known",
    },
    "tools.reference.known": {
        *CRYSTALS,
        "tools.hull",
        "tools.prototypes",
        "tools.reference.sources",
        "tools.reference.recipe",
    },
    "tools.reference.recipe": {
        *BELOW_SCREENING,
        "models.potential",
    },
    "tools.screening.cells": {"tools.crystal"},
    "tools.screening": {
        *BELOW_SCREENING,
        "tools.screening.cells",
        "models.potential",
        "models.language",
    },
    "tools.screening.shortlist": {*BELOW_SCREENING, "tools.screening", "models.potential"},
    "tools.uncertainty": {*BELOW_SCREENING, "tools.screening", "models.potential"},
    "tools.evaluation": {*BELOW_SCREENING, "tools.screening", "models.language"},
    "training.crystals": {
        *CRYSTALS,
        "tools.prototypes",
        "tools.evaluation",
        "models.language",
        "models.potential",
        "training.engine",
    },
    "training.engine": {"models.language"},
    "training.structure_types": {
        *TOOLS,
        "training.crystals",
        "models.language",
        "models.potential",
    },
    "training": {
        "training.crystals",
        "training.engine",
        "tools.crystal",
        "tools.crystal.stoichiometry",
        "tools.screening",
    },
    "agents.settings": {
        "tools.records",
        "tools.relax",
        "tools.screening",
        "models.language",
    },
    "agents.language": {
        *CRYSTALS,
        *LANGUAGE,
        "tools.store",
        "agents.settings",
    },
    "agents.workspace": {*TOOLS, "agents.language", "agents.settings", "models.potential"},
    "agents.planning": {
        *CRYSTALS,
        *LANGUAGE,
        "tools.store",
        "agents.workspace",
        "agents.language",
        "agents.settings",
    },
    "agents.followup": {
        *TOOLS,
        "models.language",
        "agents.workspace",
        "agents.settings",
        "models.potential",
    },
    "agents.operators": {
        *CRYSTALS,
        *LANGUAGE,
        "tools.prototypes",
        "agents.planning",
        "agents.workspace",
        "agents.language",
        "agents.settings",
    },
}
FLOORS["agents.campaign"] = {
    *TOOLS,
    *LANGUAGE,
    "models.potential",
    "agents.operators",
    "agents.planning",
    "agents.followup",
    "agents.workspace",
    "agents.language",
    "agents.settings",
}
FLOORS["agents.cli"] = {*FLOORS["agents.campaign"], "agents.campaign", "agents"}
FLOORS["agents"] = {*TOOLS, *LANGUAGE, "models.potential", "agents.settings"}  # doctor
FLOORS["ui"] = {*TOOLS, *FLOORS["agents.cli"]}

# Modules that may use the environment. Only the settings decide anything by it.
READS_THE_ENVIRONMENT = {"agents/settings/machine.py"}
PREPARES_CHILDREN = {  # copies or sets variables for a process it starts
    "tools/crystal/files/cif.py",
    "tools/relax/workers.py",
}

HEAVY = ("torch", "chgnet", "pymatgen", "transformers", "streamlit", "vllm", "matplotlib", "ray")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def dotted(path):
    parts = ("hullward", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PACKAGES = {dotted(path) for path in MODULES if path.name == "__init__.py"}
NAMES = {dotted(path): path for path in MODULES}


def package_of(module):
    """'tools.crystal.text' of 'hullward.tools.crystal.text.cell' or of the package itself."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    return package.removeprefix("hullward.")


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


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


def our_imports(tree):
    """(module or package, name or None) of what is imported from the project itself.

    `from package import module` counts as an import of the module.
    """
    for module, name in imports_of(tree):
        if module.split(".")[0] != "hullward":
            continue
        whole = f"{module}.{name}" if name else module
        yield (whole, None) if whole in NAMES else (module, name)


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


@every_module
def test_packages_import_only_downwards(path):
    here = package_of(dotted(path))
    allowed = FLOORS[here] | GROUND | {here}
    wrong = {
        package
        for module, _ in our_imports(tree_of(path))
        if (package := package_of(module)) not in allowed
    }
    assert not wrong, f"{name_of(path)}: {here} may not import {', '.join(sorted(wrong))}"


def test_every_package_has_a_floor_and_every_floor_a_package():
    packages = {package_of(package) for package in PACKAGES}
    assert packages - set(FLOORS) == set()
    assert set(FLOORS) - packages == set()


def circle_in(edges):
    """One circle of a graph {node: successors} as a list of nodes, or [] where there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        path.append(node)
        for successor in sorted(edges.get(node, ())):
            if found := visit(successor):
                return found
        done.add(path.pop())
        return []

    for node in sorted(edges):
        if found := visit(node):
            return found
    return []


def test_no_circle_of_modules():
    edges = {
        dotted(path): {
            module for module, _ in our_imports(tree_of(path)) if module in set(NAMES) - PACKAGES
        }
        for path in MODULES
        if path.name != "__init__.py"
    }
    assert circle_in(edges) == []


def test_no_circle_of_packages():
    edges = defaultdict(set)
    for path in MODULES:
        here = package_of(dotted(path))
        edges[here] |= {package_of(m) for m, _ in our_imports(tree_of(path))} - {here} - GROUND
    assert circle_in(edges) == []


def test_the_search_for_circles_finds_one():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_stay_small(package):
    folder = NAMES[package].parent
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= LARGEST_PACKAGE, f"{package} has {len(modules)} modules"
    if package == "hullward.tools":
        assert len(list(folder.glob("*/__init__.py"))) <= MOST_TOOLS


@every_module
def test_length_follows_purpose(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{name_of(path)} has {lines} lines"
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert not long, f"{name_of(path)}: functions of {LONGEST_FUNCTION} lines at most: {long}"


FACES = sorted(package for package in PACKAGES if package.count(".") > 1)


@pytest.mark.parametrize("package", FACES)
def test_faces_export_names_and_define_nothing(package):
    tree = tree_of(NAMES[package])
    docstring = ast.get_docstring(tree) or ""
    assert 3 <= len(docstring.splitlines()) <= 10, f"{package}: a docstring of 3 to 10 lines"
    imported, listed = [], None
    for node in tree.body[1:]:
        if isinstance(node, ast.ImportFrom):
            assert f"{node.module}.".startswith(f"{package}."), node.module
            imported += [alias.asname or alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.Assign), f"{package} defines something"
            assert node.targets[0].id == "__all__"
            listed = ast.literal_eval(node.value)
    assert listed is not None, f"{package} has no __all__"
    assert sorted(imported) == sorted(listed)


def test_no_module_has_the_name_of_something_its_face_exports():
    hidden = [
        f"{package}.{name}"
        for package in FACES
        for module, name in our_imports(tree_of(NAMES[package]))
        if name and f"{package}.{name}" in NAMES
    ]
    assert hidden == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=name_of)
def test_other_packages_are_imported_through_their_faces(path):
    """From outside a package, names come from its face; a sub-package counts as inside."""
    here = package_of(dotted(path))
    inside = []
    for module, name in our_imports(tree_of(path)):
        package = package_of(module)
        face = f"hullward.{package}"
        if (
            f"{here}.".startswith(f"{package}.")
            or module in PACKAGES
            or name is None
            or face not in FACES
        ):
            continue
        inside.append(f"{module}.{name}")
    assert not inside, f"{name_of(path)}: import from the face of the package: {inside}"


def test_public_class_names_are_unique():
    where = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name_of(path))
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}


@every_module
def test_packages_are_imported_under_their_full_name(path):
    wrong = [m for m, _ in imports_of(tree_of(path)) if m.split(".")[0] in ROOMS or m[:1] == "."]
    assert not wrong, f"{name_of(path)}: write hullward.{wrong[0].lstrip('.')}"


def test_agents_reach_training_through_one_function_at_most():
    doors = {
        (module, name)
        for path in MODULES
        if package_of(dotted(path)).split(".")[0] == "agents"
        for module, name in our_imports(tree_of(path))
        if module.startswith("hullward.training")
    }
    assert len(doors) <= 1, f"agents use {len(doors)} things of training: {sorted(doors)}"


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_imports_of_benchmarks_resolve(path):
    """No test runs the benchmarks, so a move could break them unnoticed."""
    for module, name in our_imports(tree_of(path)):
        assert module in NAMES, f"{name_of(path)} imports {module}"
        if name:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_commands_in_text_name_modules_that_run(repository_files):
    """Every `python -m hullward…` that a user reads or that the project prints can be run."""
    found = {
        (name_of(path), module)
        for path in repository_files
        if path.suffix in {".md", ".py", ".yaml", ""} and path.name != "CHANGELOG.md"
        for module in re.findall(
            r"-m (hullward(?:\.\w+)+)", path.read_bytes().decode("utf-8", errors="ignore")
        )
    }
    assert found
    faced = {module for face in FACES for module, _ in our_imports(tree_of(NAMES[face]))}
    wrong = [
        f"{name}: python -m {module}"
        for name, module in sorted(found)
        if (path := NAMES.get(f"{module}.__main__") or NAMES.get(module)) is None
        or (
            module in faced and f"{module}.__main__" not in NAMES
        )  # it would run a second time, under another name
        or '__name__ == "__main__"' not in path.read_text(encoding="utf-8")
    ]
    assert wrong == []


def test_module_names_in_text_resolve():
    """`hullward.x.y` in a docstring, a README or a monkeypatch names something that is there."""
    wrong: list[str] = []
    texts = [*MODULES, *ROOT.glob("*.md"), *ROOT.glob("tests/**/test_*.py")]
    texts += [path for room in ROOMS for path in (ROOT / room).rglob("*.md")]
    for path in texts:
        if path.name in ("CHANGELOG.md", "test_architecture.py"):
            continue
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"[`\"](hullward(?:\.\w+)+)[`\"]", text))
        wrong += [
            f"{name_of(path)}: {module}"
            for module in sorted(named)
            if module.split(".")[1] in ROOMS and not resolves(module)
        ]
    assert wrong == []


def resolves(name):
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        module = ".".join(parts[:length])
        if module in NAMES:
            thing = importlib.import_module(module)
            for attribute in parts[length:]:
                if not hasattr(thing, attribute):
                    return False
                thing = getattr(thing, attribute)
            return True
    return False


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
    assert not wrong, f"only agents/settings/machine.py reads the environment: {', '.join(wrong)}"


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
    ("code", "found"),
    [
        ("import hullward.ui", {("hullward.ui", None)}),
        ("from hullward import ui", {("hullward.ui", None)}),
        ("from hullward.models.errors import X", {("hullward.models.errors", "X")}),
        ("def f():\n    from hullward.models.errors import X", {("hullward.models.errors", "X")}),
        ("if TYPE_CHECKING:\n    from hullward import ui", {("hullward.ui", None)}),
        ("import importlib\nimportlib.import_module('hullward.ui')", {("hullward.ui", None)}),
        ("import os, json", set()),
    ],
)
def test_the_floor_check_sees_every_way_in(code, found):
    assert set(our_imports(ast.parse(code))) == found


LOOK_AFTER_IMPORTING = """
import importlib, json, logging, sys, threading
acts = []
def by_cuda():  # the CUDA build of torch looks for its libraries
    frame = sys._getframe(2)
    while frame and "/cuda/pathfinder/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None
def watch(event, arguments):
    if event in {"socket.connect", "subprocess.Popen", "os.system", "os.putenv"} and not by_cuda():
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
