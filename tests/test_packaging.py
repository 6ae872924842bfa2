"""What is in the repository, and what a wheel of it installs."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = ("agents", "data", "models", "tools", "training", "ui")
TOP = {*ROOMS, "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"}

# Folders of one machine. The pattern does not match its own source.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|home|Users|opt|mnt|scratch)/\w")


def test_the_top_level_keeps_its_names(repository_files):
    top = {path.relative_to(ROOT).parts[0] for path in repository_files}
    assert {name for name in top if not name.startswith(".")} - TOP == set()


def test_every_package_is_listed():
    tool = PROJECT["tool"]["setuptools"]
    assert tool["package-dir"] == {"hullward": "."}
    folders = {
        path.parent.relative_to(ROOT) for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py")
    }
    assert sorted(tool["packages"]) == sorted(f"hullward.{'.'.join(f.parts)}" for f in folders)
    assert not (ROOT / "__init__.py").exists()


def test_no_file_names_a_folder_of_one_machine(repository_files):
    found = []
    for path in repository_files:
        if b"\0" in (content := path.read_bytes()):
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_changelog_has_this_version():
    version = PROJECT["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert version in headings


def declared():
    return {canonicalize_name(Requirement(r).name) for r in PROJECT["project"]["dependencies"]}


def imported_packages():
    """Top-level names that the rooms import from third parties, also inside functions."""
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            yield from ((name.split(".")[0], path.relative_to(ROOT).as_posix()) for name in names)


def test_what_is_imported_is_declared():
    owners = packages_distributions()
    missing = {
        f"{name} (in {where})"
        for name, where in imported_packages()
        if name not in sys.stdlib_module_names and name != "hullward"
        if not {canonicalize_name(owner) for owner in owners.get(name, ())} & declared()
    }
    assert missing == set()


@pytest.fixture(scope="module")
def wheel(repository_files, tmp_path_factory):
    """The names in a wheel; it is built from a copy, so that the sources stay clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in repository_files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(out)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [built] = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_a_wheel_installs_nothing_beside_hullward(wheel):
    version = PROJECT["project"]["version"]
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"hullward", f"hullward-{version}.dist-info"}
    assert "hullward/__init__.py" not in wheel


def test_a_wheel_carries_every_module_and_every_data_file(wheel, repository_files):
    inside = {name for name in wheel if name.startswith("hullward/")}
    rooms = (path.relative_to(ROOT) for path in repository_files)
    expected = {f"hullward/{path.as_posix()}" for path in rooms if path.parts[0] in ROOMS}
    assert inside == expected
