"""Commands arrive in order, at least once, and never crash the writer."""

import json

import pytest

from hullward.models.errors import InputError
from hullward.tools.store import inbox
from hullward.tools.store.inbox import acknowledge, drain, send


def test_commands_come_oldest_first_and_stay_until_acknowledged(tmp_path, monkeypatch):
    for second, kind in enumerate(["stop", "rejudge"]):
        monkeypatch.setattr(inbox, "timestamp", lambda s=second: f"2026-01-01T00:00:0{s}.000Z")
        send(tmp_path, kind, {"reference": "file.json"})
    assert [command.kind for command in drain(tmp_path)] == ["stop", "rejudge"]
    first, second = drain(tmp_path)
    acknowledge(first)
    acknowledge(first)
    assert drain(tmp_path) == [second]
    assert [path.name for path in (tmp_path / "inbox/done").iterdir()] == [first.path.name]


def test_asking_twice_is_asking_once_until_it_was_done(tmp_path):
    assert send(tmp_path, "stop", {}) == send(tmp_path, "stop", {})
    (command,) = drain(tmp_path)
    acknowledge(command)
    send(tmp_path, "stop", {})
    assert [again.command_id for again in drain(tmp_path)] == [command.command_id]
    send(tmp_path, "stop", {}, command_id="click-2")
    assert len(drain(tmp_path)) == 2


def test_no_inbox_is_an_empty_one(tmp_path):
    assert drain(tmp_path) == []


GOOD = {"command_id": "k-1", "kind": "stop", "payload": {}, "sent": "2026-01-01T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[1, 2]", "object"),
        (b"[" * 5000, "JSON"),
        (json.dumps(GOOD | {"kind": "format_disk"}).encode(), "kind"),
        (json.dumps(GOOD | {"extra": 1}).encode(), "extra"),
        (json.dumps(GOOD | {"payload": "x"}).encode(), "payload"),
        (json.dumps(GOOD | {"command_id": "../../x"}).encode(), "command_id"),
        (json.dumps(GOOD | {"command_id": "other"}).encode(), "other"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "sent"}).encode(), "sent"),
        (b" " * (inbox.MAX_BYTES + 1), "larger"),
    ],
)
def test_a_malformed_file_moves_aside_with_its_reason(tmp_path, content, reason):
    send(tmp_path, "rejudge", {"reference": "x"})
    (tmp_path / "inbox/k-1.json").write_bytes(content)
    assert [command.kind for command in drain(tmp_path)] == ["rejudge"]
    bad = tmp_path / "inbox/bad"
    assert (bad / "k-1.json").read_bytes() == content
    assert reason in json.loads((bad / "k-1.json.reason").read_text())["reason"]


def test_links_and_folders_are_no_commands(tmp_path):
    (tmp_path / "inbox/folder.json").mkdir(parents=True)
    (tmp_path / "secret").write_text(json.dumps(GOOD))
    (tmp_path / "inbox/k-1.json").symlink_to(tmp_path / "secret")
    assert drain(tmp_path) == []
    assert (tmp_path / "secret").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "explode", "payload": {}},
        {"kind": "stop", "payload": {}, "command_id": "../x"},
        {"kind": "stop", "payload": {}, "command_id": "A b"},
    ],
)
def test_what_cannot_be_a_command_is_not_sent(tmp_path, arguments):
    with pytest.raises(InputError, match="cannot send"):
        send(tmp_path, **arguments)
    assert drain(tmp_path) == []
