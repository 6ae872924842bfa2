"""Fetching from the Materials Project: what is asked for and kept, and every way to fail."""

import json
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, combinations, repeat
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymatgen.core import Composition

from hullward.models.crystal import Crystal
from hullward.models.errors import FetchError, InputError
from hullward.tools.hull import MP2020
from hullward.tools.reference import load_reference
from hullward.tools.reference.materials_project import (
    Access,
    fetch_stable,
    fetch_systems,
    whole_systems,
)
from hullward.tools.reference.materials_project import fetch as materials_project
from hullward.tools.reference.materials_project import session as mp_session
from hullward.tools.reference.materials_project.server_double import (
    KEY,
    Fault,
    MaterialsProjectDouble,
    thermo_document,
)
from hullward.tools.reference.materials_project.stored import mp_folder
from hullward.tools.reference.sources.rows import read_rows

HALF = [[0, 0, 0], [0.5, 0.5, 0.5]]


def cell(*species: str, a: float = 3.0) -> Crystal:
    return Crystal.from_parameters((a,) * 3, (90,) * 3, list(species), HALF[: len(species)])


def documents() -> list[dict[str, Any]]:
    return [
        thermo_document("mp-1", cell("Li", "Li"), -1.9, is_stable=True),
        thermo_document("mp-2", cell("O", "O"), -4.95, is_stable=True),
        thermo_document("mp-3", cell("Na", "Na"), -1.3, is_stable=True),
        thermo_document(
            "mp-4",
            cell("Li", "O"),
            -5.0,
            correction_ev=-0.687,
            is_stable=True,
            formation_ev_per_atom=-1.575,
        ),
        thermo_document(
            "mp-5", cell("Li", "O", a=3.4), -4.8, correction_ev=-0.687, formation_ev_per_atom=-1.375
        ),
        thermo_document(
            "mp-4", cell("Li", "O"), -7.0, run_type="r2SCAN", thermo_type="GGA_GGA+U_R2SCAN"
        ),
    ]


@pytest.fixture
def server() -> Iterator[MaterialsProjectDouble]:
    with MaterialsProjectDouble(documents()) as double:
        yield double


@pytest.fixture
def waited() -> list[float]:
    return []


@pytest.fixture
def access(server: MaterialsProjectDouble, tmp_path: Path, waited: list[float]) -> Access:
    return Access(
        key=SecretStr(KEY),
        home=tmp_path / "home",
        endpoint=server.endpoint,
        sleep=waited.append,
    )


def kept(access: Access) -> list[str]:
    """Files of fetched systems; the session's own two are aside."""
    folder = mp_folder(access.home)
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.parent != folder)


def test_a_whole_system_is_fetched_in_two_calls_and_kept(
    server: MaterialsProjectDouble, access: Access
) -> None:
    answer = fetch_systems(["O-Li"], access)
    assert answer.database_version == "2025.09.25"
    [manifest] = answer.fetched
    assert (manifest.system, manifest.count, manifest.thermo_type) == ("Li-O", 4, "GGA_GGA+U")
    assert manifest.licence == "CC BY 4.0"
    assert kept(access) == ["Li-O.json", "Li-O.jsonl.zst"]
    thermo = [asked for path, asked in server.requests if path == "/materials/thermo/"]
    assert len(thermo) == 2  # the count, and one page
    assert all(asked["thermo_types"] == "GGA_GGA+U" for asked in thermo)
    assert sorted(thermo[1]["chemsys"].split(",")) == ["Li", "Li-O", "O"]

    reference = load_reference("mp", access.home)
    assert (reference.version, reference.energy_scheme) == ("2025.09.25", MP2020)
    assert reference.hull("Li-O").distance({"Li": 1, "O": 1}, -4.8)[0] == pytest.approx(0.2)
    assert reference.coverage({"Li": 1, "O": 1}).covered
    assert len(reference.library_entries("Li-O")) == 4  # with structures
    assert "mp-api" in reference.statement
    assert load_reference("mp:2025.09.25", access.home).version == reference.version


def test_what_is_here_is_not_fetched_again_nor_its_subsystems(
    server: MaterialsProjectDouble, access: Access
) -> None:
    fetch_systems(["Li-O"], access)
    server.requests.clear()
    answer = fetch_systems(["Li-O", "Li"], access)
    assert answer.fetched == ()
    assert answer.already_here == ("Li-O", "Li")
    assert set(server.paths()) == {"/heartbeat"}


def test_a_single_element_can_be_fetched(access: Access) -> None:
    assert fetch_systems(["Na"], access).fetched[0].count == 1


def test_a_new_database_version_is_kept_beside_the_old_one(
    server: MaterialsProjectDouble, access: Access
) -> None:
    fetch_systems(["Li-O"], access)
    server.database_version = "2025.10.1"
    fetch_systems(["Li-O"], access)
    assert load_reference("mp", access.home).version == "2025.10.1"
    assert load_reference("mp:2025.09.25", access.home).version == "2025.09.25"


def test_a_database_that_changes_meanwhile_keeps_nothing(
    server: MaterialsProjectDouble, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*anything: object) -> None:
        server.database_version = "2026.1.1"

    monkeypatch.setattr(materials_project, "check_entries", check)
    with pytest.raises(FetchError, match=r"changed from database version 2025\.09\.25 to 2026"):
        fetch_systems(["Li-O"], access)
    assert kept(access) == []


def test_large_answers_come_in_pages(server: MaterialsProjectDouble, access: Access) -> None:
    one = documents()[0]
    server.documents += [one | {"material_id": f"mp-{100 + i}"} for i in range(1200)]
    assert fetch_stable(access).fetched[0].count == 1204
    pages = [asked for _, asked in server.requests if "formula_pretty" in asked.get("_fields", "")]
    assert [int(asked.get("_skip", 0)) for asked in pages] == [0, 1000]


def test_the_stable_phases_of_the_whole_database(access: Access) -> None:
    answer = fetch_stable(access)
    assert (answer.fetched[0].system, answer.fetched[0].count) == ("stable", 4)
    assert fetch_stable(access).already_here == ("stable",)
    reference = load_reference("mp-stable", access.home)
    height = reference.hull("Li-O").distance({"Li": 1, "O": 1}, -4.8)[0]
    assert height == pytest.approx(0.2)  # from the corrected total energy, whatever its elements
    assert reference.coverage({"Cs": 1, "Ti": 1, "I": 3}).covered
    with pytest.raises(InputError, match=r"nothing was fetched from database version '2020\.1\.1'"):
        load_reference("mp-stable:2020.1.1", access.home)


# -- every way to fail: one line, and nothing kept ----------------------------------------------


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "no key for the Materials Project: set MP_API_KEY"),
        ("short", "has 5 characters, a key has 32"),
        ("x" * 32, r"does not accept the key in MP_API_KEY \(401\)"),
    ],
)
def test_a_missing_or_bad_key(key: str | None, message: str, access: Access) -> None:
    access = access._replace(key=SecretStr(key) if key else None)
    with pytest.raises(FetchError, match=message) as caught:
        fetch_systems(["Li-O"], access)
    assert_one_line_without(caught.value, key)
    assert kept(access) == []


def assert_one_line_without(error: Exception, key: str | None) -> None:
    assert "\n" not in str(error)
    assert key is None or key not in str(error)


def test_a_refusal_is_not_argued_with(server: MaterialsProjectDouble, access: Access) -> None:
    server.faults.append(Fault("status", 403))
    with pytest.raises(FetchError, match=r"refused \(403\).*Not asking again.*before") as caught:
        fetch_systems(["Li-O"], access)
    assert_one_line_without(caught.value, KEY)
    asked = len(server.requests)
    with pytest.raises(FetchError, match=r"refused \(403\)"):
        fetch_systems(["Li-O"], access)
    assert len(server.requests) == asked  # it did not ask
    refusal = mp_folder(access.home) / "refused.json"
    assert KEY not in refusal.read_text()
    content = json.loads(refusal.read_text())
    content["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    refusal.write_text(json.dumps(content))
    assert fetch_systems(["Li-O"], access).fetched  # the time is over


def test_another_key_may_try_after_a_refusal(
    server: MaterialsProjectDouble, access: Access
) -> None:
    server.faults.append(Fault("status", 403))
    with pytest.raises(FetchError):
        fetch_systems(["Li-O"], access._replace(key=SecretStr("y" * 32)))
    assert fetch_systems(["Li-O"], access).fetched


@pytest.mark.parametrize("path", ["heartbeat", "thermo"])
def test_a_redirect_to_another_server_is_not_followed(
    path: str, server: MaterialsProjectDouble, access: Access
) -> None:
    with MaterialsProjectDouble() as other:
        elsewhere = f"{other.endpoint}heartbeat"
        server.faults.append(Fault("status", 302, path=path, location=elsewhere))
        with pytest.raises(FetchError, match=r"redirects to another server, 'http://.*heartbeat'"):
            fetch_systems(["Li-O"], access)
        assert other.keys == []
    assert kept(access) == []


def test_a_redirect_on_the_same_server_is_followed(
    server: MaterialsProjectDouble, access: Access
) -> None:
    server.faults.append(Fault("status", 307, path="heartbeat", location="/heartbeat"))
    assert fetch_systems(["Li-O"], access).fetched


def head(status: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", *fields, "", ""]).encode()


def packed() -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, block = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in "12")
    yield head(200, "Content-Encoding: gzip")
    yield first
    yield from repeat(block)


DEEP = head(200) + b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (lambda: chain([head(200)], repeat(b" " * 2**16)), "at most 4,194,304 are read"),
        (packed, "at most 4,194,304 are read"),
        (lambda: chain([head(200)], repeat(b" ", 10**9)), "not over after 1 s"),
        (lambda: [DEEP], "does not understand the answer|does not give its database version"),
    ],
    ids=["endless", "packed", "a trickle", "deep"],
)
@pytest.mark.parametrize("path", ["heartbeat", "thermo"])
def test_what_is_too_much_is_not_read(
    path: str,
    raw: Callable[[], Iterable[bytes]],
    message: str,
    server: MaterialsProjectDouble,
    access: Access,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mp_session, "MOST_BYTES", 2**22)
    monkeypatch.setattr(mp_session, "LONGEST_ANSWER_S", 1.0)
    server.faults.append(Fault("raw", path=path, raw=raw))
    with pytest.raises(FetchError, match=message) as caught:
        fetch_systems(["Li-O"], access)
    assert_one_line_without(caught.value, KEY)
    assert kept(access) == []


def test_the_text_of_an_error_is_not_read_to_its_end(
    server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    endless = lambda: chain([head(503)], repeat(b" " * 2**16))  # noqa: E731
    server.faults += [Fault("raw", path="heartbeat", raw=endless)] * 2
    assert fetch_systems(["Li-O"], access).fetched
    assert len(waited) == 2


@pytest.mark.parametrize(
    ("proxy", "words"),
    [("socks5h://127.0.0.1:9", "pip install pysocks"), ("gopher://127.0.0.1:9", "cannot be asked")],
)
def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str,
    words: str,
    server: MaterialsProjectDouble,
    access: Access,
    waited: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(FetchError, match=words) as caught:
        fetch_systems(["Li-O"], access)
    assert_one_line_without(caught.value, KEY)
    assert waited == []


@pytest.mark.parametrize("spoiled", ["heartbeat", "thermo"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again_later(
    status: int, spoiled: str, server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    server.faults += [Fault("status", status, path=spoiled)] * 2
    assert fetch_systems(["Li-O"], access).fetched
    first, second = waited
    assert 3 <= first <= 5
    assert 6 <= second <= 10  # doubled, jittered


def in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True)


def test_retry_after_is_honoured(
    server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    server.faults.append(Fault("status", 429, retry_after="120"))
    assert fetch_systems(["Li-O"], access).fetched
    assert 120 <= waited[0] <= 121


@pytest.mark.parametrize("ask", ["86400", "date"])
def test_a_longer_wait_than_patience_ends_it(
    ask: str, server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    after = in_an_hour() if ask == "date" else ask
    server.faults.append(Fault("status", 429, retry_after=after))
    with pytest.raises(FetchError, match=r"too many requests \(429\) .*it asks to wait \d+ s"):
        fetch_systems(["Li-O"], access)
    assert waited == []
    assert kept(access) == []


def test_patience_is_bounded(
    server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    server.faults += [Fault("status", 500)] * 100
    with pytest.raises(FetchError, match=r"system Li-O: .*its server has an error \(500\)"):
        fetch_systems(["Li-O"], access._replace(patience_s=100.0))
    assert sum(waited) <= 100
    assert len(waited) >= 3


def test_no_server_there(access: Access, waited: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(FetchError, match=r"out of reach: no connection") as caught:
        fetch_systems(["Li-O"], access._replace(endpoint=endpoint, patience_s=10.0))
    assert_one_line_without(caught.value, KEY)


def test_something_that_is_no_materials_project(
    server: MaterialsProjectDouble, access: Access
) -> None:
    server.database_version = ""
    with pytest.raises(FetchError, match="does not give its database version"):
        fetch_systems(["Li-O"], access)


def test_an_answer_cut_short_is_asked_for_again(
    server: MaterialsProjectDouble, access: Access, waited: list[float]
) -> None:
    server.faults.append(Fault("cut"))
    assert fetch_systems(["Li-O"], access).fetched
    assert len(waited) == 1


def spoil(entry_of: str, **changes: Any) -> Any:
    def change(server: MaterialsProjectDouble) -> None:
        for document in server.documents:
            if document["material_id"] == entry_of and document["thermo_type"] == "GGA_GGA+U":
                [entry] = document["entries"].values()
                entry |= changes

    return change


def uncorrected(server: MaterialsProjectDouble) -> None:
    spoil("mp-4", correction=0.0, energy_adjustments=[])(server)


def mixed(server: MaterialsProjectDouble) -> None:
    spoil("mp-4", parameters={"run_type": "r2SCAN"})(server)


def other_type(server: MaterialsProjectDouble) -> None:
    server.documents = [d | {"thermo_type": "GGA_GGA+U"} for d in server.documents]


def corrected_twice(server: MaterialsProjectDouble) -> None:
    for document in server.documents:
        document["energy_per_atom"] += 0.3


def two_energies(server: MaterialsProjectDouble) -> None:
    server.documents.append(
        thermo_document("mp-4", cell("Li", "O"), -5.1, correction_ev=-0.687),
    )


def twice_the_same(server: MaterialsProjectDouble) -> None:
    server.documents.append(documents()[3])


def no_lithium(server: MaterialsProjectDouble) -> None:
    server.documents = [d for d in server.documents if d["material_id"] != "mp-1"]


def half_a_page(server: MaterialsProjectDouble) -> None:
    server.faults += [Fault("none"), *[Fault("short")] * 5]  # the count is right


def miscounted(server: MaterialsProjectDouble) -> None:
    server.miscounted = 7


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (uncorrected, r"mp-4-GGA is not on the corrected GGA/GGA\+U scale \(no correction\)"),
        (mixed, r"mp-4-GGA is not on the corrected GGA/GGA\+U scale \(run type r2SCAN\)"),
        (other_type, r"mp-4-r2SCAN is not on the corrected GGA/GGA\+U scale"),
        (corrected_twice, "corrections are missing or doubled"),
        (two_energies, "mp-4-GGA occurs with two energies"),
        (twice_the_same, "4 entries came, the server counts 5"),
        (no_lithium, "no entry of the element Li, so there can be no hull"),
        (half_a_page, r"entries came, the server counts 4: a half-downloaded system"),
        (miscounted, r"4 entries came, the server counts 11: a half-downloaded system"),
    ],
)
def test_what_does_not_add_up_is_refused_whole(
    trouble: Any, message: str, server: MaterialsProjectDouble, access: Access
) -> None:
    trouble(server)
    with pytest.raises(FetchError, match=f"^system Li-O: .*{message}") as caught:
        fetch_systems(["Li-O"], access)
    assert_one_line_without(caught.value, KEY)
    assert kept(access) == []
    assert load_reference("mp", access.home).version == "not-fetched"


def test_half_of_the_stable_phases_is_refused(
    server: MaterialsProjectDouble, access: Access
) -> None:
    server.miscounted = 30_000
    with pytest.raises(FetchError, match="4 came, the server counts 30004: half-downloaded"):
        fetch_stable(access)
    assert kept(access) == []


def test_what_was_whole_before_the_trouble_stays(
    server: MaterialsProjectDouble, access: Access
) -> None:
    with pytest.raises(FetchError, match=r"system Fe-Na: .*no entry of the element Fe"):
        fetch_systems(["Li-O", "Na-Fe"], access)
    assert kept(access) == ["Li-O.json", "Li-O.jsonl.zst"]


def test_a_query_the_server_does_not_know(server: MaterialsProjectDouble, access: Access) -> None:
    server.faults.append(Fault("status", 400))
    with pytest.raises(FetchError, match="system Li-O: the Materials Project does not answer"):
        fetch_systems(["Li-O"], access)


def test_the_day_has_a_cap_of_calls(server: MaterialsProjectDouble, access: Access) -> None:
    server.faults += [Fault("status", 503)] * 2  # retries count
    fetch_systems(["Li-O"], access)
    spent = json.loads((mp_folder(access.home) / "calls.json").read_text())["calls"]
    assert spent == len(server.requests)
    capped = access._replace(calls_per_day=spent)
    with pytest.raises(FetchError, match=f"{spent} calls were made .* today .*the cap is {spent}"):
        fetch_systems(["Na"], capped)
    assert len(server.requests) == spent


def test_the_count_of_calls_starts_again_each_day(access: Access) -> None:
    folder = mp_folder(access.home)
    folder.mkdir(parents=True)
    (folder / "calls.json").write_text(json.dumps({"day": "2020-01-01", "calls": 10**6}))
    assert fetch_systems(["Na"], access).fetched


@pytest.mark.parametrize(
    ("system", "message"),
    [("Li-Xx", "'Xx' is no element"), ("H-He-Li-Be-B-C-N-O-F-Ne", "more than 9 elements")],
)
def test_what_is_no_system_asks_nobody(
    system: str, message: str, server: MaterialsProjectDouble, access: Access
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_systems([system], access)
    assert server.requests == []


def test_a_damaged_file_is_noticed(access: Access) -> None:
    fetch_systems(["Li-O"], access)
    [path] = mp_folder(access.home).rglob("Li-O.jsonl.zst")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged; delete it with its manifest"):
        load_reference("mp", access.home).hull("Li-O")


def test_without_its_manifest_a_file_is_not_there(access: Access) -> None:
    fetch_systems(["Li-O"], access)
    [path] = mp_folder(access.home).rglob("Li-O.json")
    path.unlink()
    assert load_reference("mp", access.home).version == "not-fetched"


def test_systems_between_the_fetched_ones_are_pending(access: Access) -> None:
    fetch_systems(["Li-O", "Na"], access)
    reference = load_reference("mp", access.home)
    assert reference.elements == {"Li", "O", "Na"}
    assert reference.lacking(frozenset({"Li", "O"})) == ""
    assert reference.lacking(frozenset({"Na", "O"})) == (
        "Na-O was not fetched from the Materials Project"
    )
    assert not reference.coverage({"Na": 2, "O": 1}).covered
    with pytest.raises(InputError, match="hullward reference fetch Na-O"):
        reference.hull("Na-O")


def test_every_choice_of_elements_lies_in_a_fetched_system() -> None:
    palette = ["Li", "Na", "K", "Mg", "Ca", "Ti", "V", "Mn", "Fe", "O", "F", "S"]
    systems = [set(s.split("-")) for s in whole_systems([palette], 3)]
    assert all(len(system) <= 9 for system in systems)
    assert len(systems) == 4
    assert all(
        any(set(choice) <= system for system in systems) for choice in combinations(palette, 3)
    )
    assert whole_systems([("Li", "O"), ("Li", "Mn", "O")], 3) == ["Li-Mn-O"]


def test_the_shared_timeout_is_never_infinite() -> None:
    assert 0 < mp_session.TIMEOUT_S < 600


@pytest.mark.slow
def test_real_entries_come_through_with_their_hull(
    shared_data: Path, server: MaterialsProjectDouble, access: Access
) -> None:
    """943 entries of Li-Fe-P-O as the Materials Project wrote them, through mp-api and back."""
    path = shared_data / "hull" / "mp_entries_Li-Fe-P-O.jsonl.zst"
    server.documents = []
    for entry in read_rows(path):
        composition = Composition(entry["composition"])
        run_type = entry["parameters"]["run_type"]
        named = {**entry, "entry_id": f"{entry['entry_id']}-{run_type}"}  # as it is served today
        server.documents.append(
            {
                "material_id": entry["entry_id"],
                "chemsys": composition.chemical_system,
                "formula_pretty": composition.reduced_formula,
                "thermo_type": "GGA_GGA+U",
                "energy_per_atom": (entry["energy"] + entry["correction"]) / composition.num_atoms,
                "entries": {run_type: named},
            }
        )
    assert fetch_systems(["Li-Fe-P-O"], access).fetched[0].count == 943
    ours, theirs = load_reference("mp", access.home), load_reference(f"file:{path}")
    direct = {p.phase_id: p for p in theirs.phases("Fe-Li-O-P")}
    phases = ours.phases("Fe-Li-O-P")
    assert len(phases) == len(direct) == 943
    for phase in phases:
        other = direct[phase.phase_id.rsplit("-", 1)[0]]
        assert phase.energy_ev_per_atom == pytest.approx(other.energy_ev_per_atom, abs=1e-9)
        assert phase.crystal is not None
        assert other.crystal is not None
        assert phase.crystal.content_id == other.crystal.content_id
        height = ours.hull("Fe-Li-O-P").distance(phase.composition, phase.energy_ev_per_atom)[0]
        expected = theirs.hull("Fe-Li-O-P").distance(phase.composition, other.energy_ev_per_atom)
        assert height == pytest.approx(expected[0], abs=1e-9)
