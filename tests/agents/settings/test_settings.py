"""A campaign file is understood or refused in one line that says how to fix it."""

import re
from pathlib import Path
from typing import Any

import pytest

from hullward.agents.settings import (
    Campaign,
    Machine,
    campaign_of,
    campaign_template,
    find_campaign,
    parse_settings,
    read_campaign,
    read_machine,
)
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError

GOOD: dict[str, Any] = {"name": "x", "systems": ["Li-Mn-O"]}

ONE_FLAW = [
    ({"systms": ["Li-O"]}, r"unknown key `systms`; did you mean `systems`\?"),
    ({"budget": {"cycle": 1}}, r"unknown key `budget.cycle`; did you mean `cycles`\?"),
    ({"protocol": {"fmax": 1}}, r"unknown key `protocol.fmax`; did you mean `fmax_ev_per_a`\?"),
    ({"protocol": {"max_steps": 0}}, "max_steps must be at least 1"),
    ({"systems": ["Li-Xq"]}, r"'Xq' is not an element; did you mean Xe\?"),
    ({"exclude_elements": ["Mn"]}, "Mn both in `systems` and in `exclude_elements`"),
    ({"budget": {"cycles": 0}}, r"`budget.cycles`: Input should be greater than 0 \(found 0\)"),
    ({"budget": {"hours": float("nan")}}, "finite number"),
    ({"min_elements": 3, "max_elements": 2}, "max_elements 2 < min_elements 3"),
    ({"min_elements": 4, "max_elements": 4}, "no chemical system is left"),
    ({"min_atoms": 9, "max_atoms": 8}, "leaves no room"),
    ({"operators": ["magic"]}, "substitution"),
    ({"operators": []}, "each operator once"),
    ({"elements": ["Li"]}, "either `systems` or `elements`"),
    ({"name": "../up"}, "pattern"),
    ({"crystal": "nao"}, "'nao' is no backend; did you mean `nano`"),
    ({"crystal": "http://127.0.0.1:8000/v1"}, "needs its model too: `crystal: {url: URL, model"),
    ({"crystal": {"urll": "http://h/v1", "model": "m"}}, r"unknown key `crystal.urll`; did you "),
    ({"crystal": {"url": "http://h/v1"}}, "a `url` needs the `model`"),
    ({"crystal": {"model": "m"}}, "give the place of the model once"),
    ({"crystal": {"url": "h:8000", "model": "m"}}, "begins with http"),
    ({"crystal": {"url": "http://h/v1", "model": "m", "recorded": "f"}}, "place of the model once"),
    ({"chat": "nano"}, "'nano' is no backend"),
    ({"chat": {"url": "http://h/v1", "model": "m", "temperature": -1}}, "chat.temperature"),
    ({"crystal": "none", "operators": ["swap", "de_novo"]}, "de_novo need a crystal model"),
    ({"operators": ["mutation"]}, "mutation need a model that follows instructions, not nano"),
]

KEY = "sk-canary-0123"


@pytest.mark.parametrize(
    "backend",
    [
        {"url": "http://h/v1", "model": "m", "api_key": KEY},
        {"url": f"http://user:{KEY}@h/v1", "model": "m"},
        {"url": f"http://h/v1?key={KEY}", "model": "m"},
        {"url": "http://h/v1", "model": "m", "authToken": KEY},
    ],
)
@pytest.mark.parametrize("role", ["chat", "crystal"])
def test_a_key_in_a_file_is_refused_and_not_repeated(role: str, backend: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"HULLWARD_{role.upper()}_API_KEY") as raised:
        parse_settings(Campaign, GOOD | {role: backend}, "file.yaml")
    assert KEY not in str(raised.value)


def test_a_key_from_the_environment_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HULLWARD_CHAT_API_KEY", KEY)
    machine = read_machine()
    assert machine.chat_api_key is not None
    assert machine.chat_api_key.get_secret_value() == KEY
    assert KEY not in repr(machine) + str(machine.model_dump(mode="json"))


SERVED: dict[str, Any] = {"url": "http://127.0.0.1:8000/v1", "model": "llamat-2-cif"}


def test_a_model_is_part_of_what_a_campaign_is_and_its_server_is_not() -> None:
    asks = GOOD | {"operators": ["formula"]}
    here = parse_settings(Campaign, asks | {"crystal": SERVED}, "t")
    there = SERVED | {"url": "https://gpu.example/v1", "at_once": 64}
    assert parse_settings(Campaign, asks | {"crystal": there}, "t").campaign_id == here.campaign_id
    for change in ({"model": "other"}, {"temperature": 0.3}, {"samples": 1}):
        other = parse_settings(Campaign, asks | {"crystal": SERVED | change}, "t")
        assert other.campaign_id != here.campaign_id
    assert parse_settings(Campaign, here.model_dump(mode="json"), "t") == here


def test_models_nobody_asks_change_nothing() -> None:
    plain = parse_settings(Campaign, GOOD, "t").campaign_id
    for unused in (
        {"crystal": "none"},
        {"crystal": SERVED},
        {"chat": "rules"},
        {"chat": "none"},
        {"overlap": False},
    ):
        assert parse_settings(Campaign, GOOD | unused, "t").campaign_id == plain
    assert parse_settings(Campaign, GOOD | {"chat": SERVED}, "t").campaign_id != plain


def test_a_checkpoint_is_found_from_every_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{name: a, systems: [Li-O], crystal: ./mine, chat: {recorded: said.jsonl}}")
    campaign = read_campaign(path)
    assert (campaign.crystal.kind, campaign.crystal.path) == ("local", tmp_path / "mine")
    assert campaign.chat.recorded == tmp_path / "said.jsonl"
    assert campaign.crystal.label == "local:mine"


@pytest.mark.parametrize(("flaw", "message"), ONE_FLAW)
def test_one_flaw_one_message(flaw: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parse_settings(Campaign, GOOD | flaw, "file.yaml")
    assert raised.value.exit_code == 2
    assert str(raised.value).startswith("file.yaml: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [unclosed", "not valid YAML"),
        ("- a list", "expected `key: value` lines, found a list"),
        ("", "expected `key: value` lines, found nothing"),
    ],
)
def test_a_file_that_is_no_campaign_says_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_campaign(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml does not exist"):
        read_campaign(tmp_path / "nowhere.yaml")


def test_every_shipped_campaign_is_valid() -> None:
    folder = Path(__file__).parents[3] / "data" / "campaigns"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for path in files:
        assert read_campaign(path).name == path.stem


def test_a_palette_gives_every_system_of_allowed_size() -> None:
    settings = {"name": "x", "elements": ["O", "Li", "Mn"], "max_elements": 2}
    assert set(parse_settings(Campaign, settings, "t").target_systems) == {"Li-Mn", "Li-O", "Mn-O"}


def test_workers_do_not_change_the_campaign_but_the_seed_does() -> None:
    same = parse_settings(Campaign, GOOD | {"workers": 2, "goal": "more"}, "t")
    other = parse_settings(Campaign, GOOD | {"seed": 1}, "t")
    here = parse_settings(Campaign, GOOD, "t")
    assert same.campaign_id == here.campaign_id != other.campaign_id


def test_settings_survive_json() -> None:
    here = parse_settings(Campaign, GOOD | {"oxidation_states": {"Mn": [2, 3]}}, "t")
    assert parse_settings(Campaign, here.model_dump(mode="json"), "t") == here


def test_command_line_beats_environment_beats_file() -> None:
    machine = Machine(workers=3)
    assert machine.workers_for(1, 5) == 1
    assert machine.workers_for(None, 5) == 3
    assert Machine(workers=None).workers_for(None, 5) == 5


def test_a_senseless_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HULLWARD_WORKERS", "many")
    with pytest.raises(InputError, match="HULLWARD_WORKERS"):
        read_machine()


def test_paths_of_a_campaign_file_hold_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{name: a, systems: [Li-O], reference: 'file:r.jsonl', known_phases: mine}"
    ids = set()
    for folder in ("here", "there"):
        path = tmp_path / folder / "a.yaml"
        path.parent.mkdir()
        path.write_text(text)
        monkeypatch.chdir(tmp_path)
        campaign = read_campaign(path.relative_to(tmp_path))
        assert campaign.reference == f"file:{path.parent / 'r.jsonl'}"
        assert campaign.known_phases == path.parent / "mine"
        ids.add(campaign.campaign_id)
    assert len(ids) == 1  # where files lie changes no result


def test_a_palette_of_too_many_systems_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    palette = "H, Li, Be, B, C, N, O, F, Na, Mg, Al, Si, P, S, Cl, K, Ca, Sc, Ti, V, Cr, Mn, Fe"
    path.write_text(f"{{name: a, elements: [{palette}], max_elements: 7}}")
    with pytest.raises(InputError, match="chemical systems, more than"):
        read_campaign(path)


@pytest.mark.parametrize(
    "name", ["HULLWARD_CHAT_API_KEY", "HULLWARD_CRYSTAL_API_KEY", "MP_API_KEY"]
)
def test_a_key_that_no_request_can_carry_is_refused_and_not_repeated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"{KEY}–ü")
    with pytest.raises(InputError, match=f"{name}.*ASCII only") as raised:
        _ = read_machine().mp_api_key
    assert KEY not in str(raised.value)
    monkeypatch.setenv(name, f" {KEY}\n")
    assert read_machine().mp_api_key is None or name == "MP_API_KEY"


@pytest.mark.parametrize(
    "url",
    ["http://h:99999/v1", "http://[::1/v1", "http://h/\x1b[31m", "http://hü/v1", "http://:1/v1"],
)
def test_a_url_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="`url`"):
        parse_settings(Campaign, GOOD | {"chat": {"url": url, "model": "m"}}, "t")


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InputError, match="rename the file"):
        parse_settings(Campaign, GOOD | {"known_phases": "caf\udce9"}, "t")


def settings_of(**given: Any) -> Campaign:
    return parse_settings(Campaign, {"name": "x", **given}, "t")


@pytest.mark.parametrize(
    ("given", "systems"),
    [
        ({"systems": "Na-Fe-P-O"}, {"Fe-Na-O-P"}),
        ({"systems": ["Na-Fe-P-O", "O-Li"]}, {"Fe-Na-O-P", "Li-O"}),
        ({"systems": ["Li-Mn-O"], "min_elements": 2}, {"Li-Mn-O", "Li-Mn", "Li-O", "Mn-O"}),
        ({"systems": ["Li-Mn-O"], "max_elements": 2}, {"Li-Mn", "Li-O", "Mn-O"}),
        ({"elements": ["Li", "Mn", "O"]}, {"Li-Mn-O", "Li-Mn", "Li-O", "Mn-O"}),
    ],
)
def test_a_system_means_all_of_its_elements(given: dict[str, Any], systems: set[str]) -> None:
    assert set(settings_of(**given).target_systems) == systems


def test_of_systems_of_two_sizes_no_part_passes() -> None:
    from hullward.tools.records import Flaw
    from hullward.tools.screening import check_crystal

    limits = settings_of(systems=["Li-Mn-O", "Li-Na"]).limits()
    cell = ((4.2, 4.2, 4.2), (90, 90, 90))
    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    part = check_crystal(
        Crystal.from_parameters(*cell, ["Li", "O"], half), limits, frozenset({"Li", "O"})
    )
    assert isinstance(part, Flaw)
    assert part.detail == "Li O: part of a system only"
    whole = Crystal.from_parameters(*cell, ["Li", "Na"], half)
    assert not isinstance(check_crystal(whole, limits, frozenset({"Li", "Na"})), Flaw)


def test_the_order_of_elements_is_the_users_and_changes_no_id() -> None:
    mine, sorted_ = settings_of(systems=["Na-Fe-P-O"]), settings_of(systems=["Fe-Na-O-P"])
    assert mine.systems == ("Na-Fe-P-O",)
    assert mine.campaign_id == sorted_.campaign_id
    assert mine.palettes == (("Fe", "Na", "O", "P"),)


def test_settings_of_before_keep_their_id_and_their_meaning() -> None:
    """Stored settings hold every value; a file of before leaves out what had other defaults."""
    stored = settings_of(systems=["Li-Mn-O"], min_elements=2, max_elements=3, max_atoms=24)
    again = settings_of(systems=["Li-Mn-O"]).goes_on_from(stored)
    assert again.campaign_id == stored.campaign_id
    assert again.target_systems == stored.target_systems
    assert again.max_atoms == 24
    other = settings_of(systems=["Li-Mn-O"], max_atoms=30).goes_on_from(stored)
    assert other.differences(stored) == ["max_atoms: 24 there, 30 here"]


def test_a_budget_may_only_be_raised() -> None:
    begun = settings_of(systems=["Li-Mn-O"], budget={"cycles": 2, "hours": 1})
    raised = settings_of(systems=["Li-Mn-O"], budget={"cycles": 3}).goes_on_from(begun)
    assert raised.campaign_id == begun.campaign_id
    assert raised.budget.cycles == 3
    lowered = settings_of(systems=["Li-Mn-O"], budget={"cycles": 1}).goes_on_from(begun)
    assert lowered.differences(begun) == [
        "budget.cycles: 2 there, 1 here",
        "budget.hours: 1.0 there, none here",
    ]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("Li Mn O", r"'Li Mn O' is neither .* did you mean the system Li-Mn-O\?"),
        ("li-mn-o", r"did you mean the system Li-Mn-O\?"),
        ("LiMnO", r"did you mean the system Li-Mn-O\?"),
        ("Li-Mm-O", r"'Mm' is not an element; did you mean Mn\?"),
        ("Fe", "no chemical system is left"),
        (".", "is a folder: name a campaign file"),
        ("li-mn-p.yaml", r"does not exist; did you mean li-mn-o\.yaml\?"),
        ("nonsense", "neither a campaign file nor a chemical system"),
    ],
)
def test_what_is_neither_file_nor_system_gets_one_line(
    named: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "li-mn-o.yaml").write_text("{name: a, systems: [Li-Mn-O]}")
    with pytest.raises(InputError, match=message):
        find_campaign(named)
    assert find_campaign("li-mn-o.yaml").name == "a"
    assert find_campaign("Na-Fe-P-O").name == "na-fe-p-o"


def test_a_template_says_every_default(tmp_path: Path) -> None:
    campaign = campaign_of("Na-Fe-P-O")
    path = tmp_path / "na-fe-p-o.yaml"
    path.write_text(campaign_template(campaign, path.name))
    assert read_campaign(path) == campaign
    head, *lines = re.sub("^# (?=[a-z_]+: )", "", path.read_text(), flags=re.M).splitlines()
    path.write_text("\n".join(lines))  # every default written out
    assert read_campaign(path).campaign_id == campaign.campaign_id
    assert head.startswith("#")
