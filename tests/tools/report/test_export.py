"""Exported files hold the stored structure and say where it comes from."""

import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools import records as r
from hullward.tools.report import export_structures
from hullward.tools.report.export import ExportedStructure, file_stem, safe_name
from hullward.tools.store import Store

REFERENCE = {"reference_id": "embedded-li-mn-o", "reference_version": "5e1f" * 8}
SITES = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0),
         (0.5, 0.5, 0.5), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]  # fmt: skip
# Short list in order of height, then a judged one, then one that never relaxed.
HEIGHTS = {4.2: 0.0, 4.3: 0.02, 4.4: 0.5, 4.5: None}


def crystal(a, shift=0.0):
    moved = [(x + shift, y, z) for x, y, z in SITES]
    return Crystal.from_parameters((a, a, a), (90, 90, 90), ["Mn"] * 4 + ["O"] * 4, moved)


def standing(candidate_id, relaxation_id):
    """An ordering of a known phase."""
    return [
        r.Explanation(
            candidate_id=candidate_id, moment="after", kind="new_prototype", match_id=None,
            match_formula=None, exchanged=(), inverse=False, rms_a=None, against="", against_id="a",
            words="", disorder="", standing="new structure of a known compound",
        ),
        r.FamilyMember(
            relaxation_id=relaxation_id, candidate_id=candidate_id, family_id=candidate_id,
            joined=candidate_id, link="first", kin=None, known_kin="mp-1", known_shared=("Mn O",),
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A published campaign, and its candidate ids in the order of HEIGHTS."""
    directory = tmp_path_factory.mktemp("campaign") / "run"
    protocol = r.Protocol()
    records = [
        r.CampaignRecord(campaign_id="k", kind="campaign", name="x", seed=0, settings={},
                         versions={}),
        r.Basis(
            campaign_id="k", potential="chgnet-0.3.0", potential_sha256="ab" * 32,
            energy_scheme="mp2020-corrected", protocol=protocol, reference_spec="embedded",
            **REFERENCE, reference_kind="embedded", reference_statement="x",
            metastable_ev_per_atom=0.1,
        ),
    ]  # fmt: skip
    ids = []
    for i, (a, height) in enumerate(HEIGHTS.items()):
        start, relaxed = crystal(a), crystal(a + 0.013, shift=0.25)
        ids.append(start.content_id)
        records += [
            r.Proposal(proposal_id=f"q-{i}", request_id="q", campaign_id="k", cycle=0, index=i,
                       operator="substitution", seed=0, raw="{}", format="crystal_json"),
            r.Candidate(proposal_id=f"q-{i}", candidate_id=ids[-1], crystal=start,
                        formula="MnO", chemsys="Mn-O", n_atoms=8, volume_per_atom_a3=9.0,
                        min_distance_a=2.0, space_group=225, charge_balanced=True, charge_note=""),
        ]  # fmt: skip
        if height is None:
            continue
        relaxation_id = r.Relaxation.make_id(ids[-1], "ab" * 32, protocol)
        records.append(
            r.Relaxation(
                relaxation_id=relaxation_id, candidate_id=ids[-1], potential="chgnet-0.3.0",
                potential_sha256="ab" * 32, energy_scheme="mp2020-corrected", protocol=protocol,
                converged=True, energy_ev_per_atom=-8.0, initial_energy_ev_per_atom=-7.9,
                residual_force_ev_per_a=0.01, residual_stress_gpa=0.1, steps=3, force_calls=4,
                magmoms_mu_b=(4.5,) * 4 + (0.1,) * 4, cpu_s=0.1, crystal=relaxed,
                volume_per_atom_a3=9.1, volume_ratio=1.0,
                space_group_loose=225, space_group_tight=225,
            )
        )  # fmt: skip
        records += [
            r.Verdict(
                relaxation_id=relaxation_id, **REFERENCE, height=kind, decomposition=(),
                e_above_hull_ev_per_atom=height, covered=True, coverage_note="",
                label="unstable" if height > 0.1 else "metastable", typical_error_ev_per_atom=0.06,
            )
            for kind in ("reference", "union")
        ]  # fmt: skip
        if i == 0:
            records += standing(ids[-1], relaxation_id)
    with Store.open(directory, command="test", create=True) as store:
        store.add(records)
        store.publish()
    return directory, ids


def same_structure(path, a):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.01, scale=False)
    read = Structure.from_file(path)
    return matcher.fit(read, crystal(a + 0.013, shift=0.25).to_structure())


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
@pytest.mark.parametrize("symmetrise", [True, False])
def test_a_cif_reads_back_as_the_relaxed_structure(made, tmp_path, symmetrise):
    directory, ids = made
    path, _ = export_structures(directory, tmp_path, symmetrise=symmetrise)
    assert path.name == f"01_MnO_Fm-3m_{ids[0][:10]}.cif"
    assert same_structure(path, 4.2)
    text = path.read_text()
    body = "".join(line for line in text.splitlines(True) if line[0] != "#")
    assert ("'F m -3 m'" in body or "Fm-3m" in body) == symmetrise
    for told in (
        ids[0],
        "embedded-li-mn-o",
        "5e1f" * 8,
        "ab" * 32,
        "fmax_ev_per_a=0.05",
        "not DFT",
    ):
        assert told in "".join(line for line in text.splitlines(True) if line[0] == "#")


def test_a_poscar_reads_back_as_the_relaxed_structure(made, tmp_path):
    paths = export_structures(made[0], tmp_path, format="poscar")
    assert [path.name for path in paths] == [
        f"{rank:02}_MnO_Fm-3m_{i[:10]}.vasp" for rank, i in enumerate(made[1][:2], 1)
    ]
    assert "space_group=Fm-3m" in paths[0].read_text().splitlines()[0]
    assert same_structure(paths[0], 4.2)


def test_one_extxyz_holds_all_with_heights_energies_and_moments(made, tmp_path):
    from ase.io import read

    (path,) = export_structures(made[0], tmp_path, format="extxyz", where="judged")
    frames = read(path, index=":")
    assert [f.info["candidate_id"] for f in frames] == made[1][:3]
    assert [f.info["e_above_union_ev_per_atom"] for f in frames] == [0.0, 0.02, 0.5]
    assert [f.get_potential_energy() for f in frames] == pytest.approx([-8.0 * 8] * 3)
    assert frames[0].get_magnetic_moments() == pytest.approx([4.5] * 4 + [0.1] * 4)
    assert "not DFT" in frames[0].info["method"]
    assert frames[0].get_volume() == pytest.approx(4.213**3, rel=1e-6)


@pytest.mark.parametrize(("where", "count"), [("shortlist", 2), ("judged", 3), ("relaxed", 3)])
def test_each_choice_is_what_it_says(made, tmp_path, where, count):
    assert len(export_structures(made[0], tmp_path, where=where)) == count


def test_ids_choose_whatever_was_relaxed(made, tmp_path):
    for asked in (made[1][2], made[1][2][:10]):
        (path,) = export_structures(made[0], tmp_path, ids=[asked])
        assert path.name == f"01_MnO_Fm-3m_{made[1][2][:10]}.cif"


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("mp-1005.cif", "03_mp-1005_MnO_c-"),
        ("b.cif#1", "03_b-1_MnO_c-"),
        ("mp-7 (table.csv#12)", "03_mp-7-table-12_MnO_c-"),
        ("../../etc/passwd é", "03_etc-passwd_MnO_c-"),
        ("é", "03_MnO_c-"),
        (None, "03_MnO_c-"),
    ],
)
def test_a_file_has_the_users_own_name_where_there_is_one(source, stem):
    made = crystal(4.2)
    one = ExportedStructure(made.content_id, made, {"formula": "MnO"}, source=source)
    assert file_stem(one, 3, 9).startswith(stem)


def test_a_second_export_neither_mixes_nor_loses(made, tmp_path):
    first = export_structures(made[0], tmp_path)
    (tmp_path / "mine.cif").write_text("x")
    assert export_structures(made[0], tmp_path) == first  # the same again
    poscars = export_structures(made[0], tmp_path, format="poscar")
    with pytest.raises(InputError, match=r"holds 1 files of an earlier export .*--replace"):
        export_structures(made[0], tmp_path, ids=[made[1][0]])
    assert all(path.is_file() for path in [*first, *poscars])
    (only,) = export_structures(made[0], tmp_path, ids=[made[1][0]], replace=True)
    assert only == first[0]
    assert sorted(p.name for p in tmp_path.glob("*.cif")) == [only.name, "mine.cif"]
    frames = export_structures(made[0], tmp_path, format="extxyz")
    with pytest.raises(InputError, match="candidates"):
        export_structures(made[0], tmp_path, format="extxyz", where="judged")
    assert export_structures(
        made[0], tmp_path, format="extxyz", where="judged", replace=True
    ) == frames  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (lambda ids: [ids[0][:-1] + "z"], "nearest: c-"),
        (lambda ids: ["../../etc/passwd"], "4 candidates are known"),
        (lambda ids: [ids[3]], "no relaxed structure yet"),
    ],
    ids=["typo", "path", "not relaxed"],
)
def test_an_id_without_a_structure_is_refused(made, tmp_path, wanted, said):
    with pytest.raises(InputError, match=said):
        export_structures(made[0], tmp_path / "out", ids=wanted(made[1]))
    assert not (tmp_path / "out").exists()


def test_unknown_formats_and_choices_are_refused(made, tmp_path):
    with pytest.raises(InputError, match="known: cif, poscar, extxyz"):
        export_structures(made[0], tmp_path, format="pdb")
    with pytest.raises(InputError, match="known: shortlist, members, judged, relaxed"):
        export_structures(made[0], tmp_path, where="best")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", ".", "a.b", "a b", "é", "a\n"])
def test_what_could_leave_the_folder_names_no_file(name):
    with pytest.raises(InputError, match="cannot name a file"):
        safe_name(name)


def test_a_link_in_the_way_is_replaced_not_followed(made, tmp_path):
    target = tmp_path / "mine"
    target.write_text("keep")
    out = tmp_path / "out"
    out.mkdir()
    name = export_structures(made[0], tmp_path / "other")[0].name
    (out / name).symlink_to(target)
    export_structures(made[0], out)
    assert target.read_text() == "keep"


def test_files_say_what_a_candidate_is_next_to_what_is_known(made, tmp_path):
    directory, ids = made
    first, second, *_ = export_structures(directory, tmp_path / "out", ids=ids[:2])
    line = "# standing: new structure of a known compound; ordering of MnO (mp-1)\n"
    assert line in first.read_text()
    assert "# standing: unknown\n" in second.read_text()
