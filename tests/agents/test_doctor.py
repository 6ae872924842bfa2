"""What `hullward doctor` finds, and that each broken thing comes with one command."""

from importlib.metadata import PackageNotFoundError

import pytest

from hullward.agents import doctor
from hullward.agents.doctor import Environment, Finding
from hullward.models.crystal import Crystal
from hullward.models.errors import PreflightError
from hullward.models.potential import load_potential

ENVIRONMENT = Environment(mp_api_key_present=False, thread_variables={"OMP_NUM_THREADS": "1"})


def one_command(finding: Finding) -> bool:
    return bool(finding.fix) and "\n" not in finding.fix and ";" not in finding.fix


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)],
)
def test_only_supported_pythons_pass(version, ok):
    finding = doctor.check_python(version)
    assert finding.ok is ok
    assert ok or (one_command(finding) and "3.11 to 3.13" in finding.says)


INSTALLED = {"hullward": "0.1.0", "torch": "2.13.0+cpu", "ase": "3.28.0", "duckdb": "2.0.1rc1"}


def installed(name):
    try:
        return INSTALLED[name]
    except KeyError:
        raise PackageNotFoundError(name) from None


@pytest.mark.parametrize(
    ("requirement", "says", "fix"),
    [
        ("torch==2.13.0", "the 1 it needs", ""),  # a local build is the same version
        ("duckdb>=2.0,<2.1", "the 1 it needs", ""),
        ("ray>=2; extra == 'cluster'", "the 0 it needs", ""),
        ("torch==2.14.0", "torch 2.13.0+cpu", "pip install 'torch==2.14.0'"),
        ("ase<3.30,>=3.29", "ase 3.28.0", "pip install 'ase<3.30,>=3.29'"),
        ("smact>=4", "smact missing", "pip install 'smact>=4'"),
    ],
)
def test_packages_are_compared_with_what_is_declared(requirement, says, fix):
    finding = doctor.check_packages([requirement], installed)
    assert (finding.ok, finding.fix) == (not fix, fix)
    assert says in finding.says


def test_a_full_disk_is_broken_and_room_enough_is_not(tmp_path):
    assert doctor.check_disk(tmp_path, 4.9).ok is False
    assert one_command(doctor.check_disk(tmp_path, 4.9))
    assert doctor.check_disk(tmp_path, 5.0).ok is True


def test_a_key_is_optional_and_only_its_presence_is_told():
    assert doctor.check_key(True).ok is True
    absent = doctor.check_key(False)
    assert absent.ok is None
    assert one_command(absent)


def test_damaged_weights_are_found_before_anything_opens_them(monkeypatch):
    def damaged(name):
        raise PreflightError(f"the weights of {name} are not the published ones")

    monkeypatch.setattr("hullward.models.potential.potential_card", damaged)
    finding = doctor.check_weights()
    assert finding.ok is False
    assert "not the published ones" in finding.says
    assert one_command(finding)


def test_a_potential_that_answers_is_asked_once():
    finding = doctor.check_potential(lambda: load_potential("toy"))
    assert finding.ok is True
    assert finding.says.startswith("toy answers: NaCl")


@pytest.mark.parametrize(
    "fault", [ImportError("libtorch.so is missing"), RuntimeError("operator does not exist")]
)
def test_a_potential_that_cannot_answer_is_a_finding_not_a_crash(fault):
    class Broken:
        def evaluate(self, crystals):
            return [fault for _ in crystals]

    def cannot_load():
        raise fault

    for load in (Broken, cannot_load):
        finding = doctor.check_potential(load)
        assert finding.ok is False
        assert str(fault) in finding.says
        assert one_command(finding)


def test_the_asked_crystal_is_rock_salt():
    salt: Crystal = doctor._rock_salt()
    assert salt.formula == "NaCl"
    assert salt.volume_per_atom_a3 == pytest.approx(5.70**3 / 8)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")
def test_everything_here_is_found_and_every_fault_has_one_command(tmp_path):
    findings = doctor.diagnose(ENVIRONMENT, tmp_path / "not" / "yet")
    by_name = {finding.name: finding for finding in findings}
    assert len(by_name) == len(findings)
    for name in ("python", "packages", "torch", "weights", "potential", "reference"):
        assert by_name[name].ok is True, by_name[name]
    assert all(one_command(finding) for finding in findings if finding.ok is False)
    assert all("\n" not in finding.says for finding in findings)
    assert "OMP_NUM_THREADS=1" in by_name["processors"].says


def test_vllm_is_looked_for_where_the_environment_says():
    assert doctor.check_vllm(None).ok is None
    assert "pip install vllm" in doctor.check_vllm(None).fix
    wrong = doctor.check_vllm("/nowhere/python")
    assert (wrong.ok, wrong.fix) == (False, "export HULLWARD_VLLM_PYTHON=~/vllm/bin/python")
    assert "/nowhere/python is no Python" in wrong.says


def test_the_second_network_answers_as_the_calibrator_knows_it():
    finding = doctor.check_second()
    assert finding.ok is True
    assert "sevennet-l3i5 answers: NaCl" in finding.says


def test_a_second_network_that_does_not_answer_comes_with_a_command():
    def broken(name):
        raise OSError("libe3nn.so: cannot open shared object file")

    finding = doctor.check_second(broken)
    assert finding.ok is False
    assert one_command(finding)
    assert "sevennet-l3i5 does not answer: OSError" in finding.says


def test_other_weights_of_the_second_network_are_noticed(monkeypatch):
    from hullward.tools.uncertainty import calibrator as calibration

    changed = calibration.shipped().changed(reading_sha256="0")
    monkeypatch.setattr("hullward.tools.uncertainty.shipped", lambda: changed)
    finding = doctor.check_second()
    assert finding.ok is False
    assert "weights are not those" in finding.says
    assert one_command(finding)
