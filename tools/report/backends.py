"""The sentences of a report on the language models that a campaign asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullward.tools.report.schema import Report


def requests_line(counts: Mapping[str, Any]) -> str:
    """Counts of requests in words: '12 answered, 3 failed (2 timeout, 1 server)'."""
    outcomes = [f"{counts[state]} {state}" for state in ("answered", "failed", "waiting")]
    if counts["failures"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in counts["failures"].items())
        outcomes[1] += f" ({kinds})"
    parts = [part for part in outcomes if not part.startswith("0 ")]
    return f"{', '.join(parts)}; {counts['tokens_in']} tokens in, {counts['tokens_out']} out"


def backends_sentence(report: Report) -> str:
    """Which models wrote structures and planned, in one sentence."""
    settings = report.campaign.settings
    if report.campaign.kind != "campaign":
        return ""
    asked = {use.backend for use in report.asked}
    crystal, chat = settings.get("crystal") or {}, settings.get("chat") or {}
    if "crystal" in asked:
        writers = f"Structures were written by {_described(crystal)}"
    else:
        writers = "No language model wrote structures"
    planner = "the built-in rules, without a chat model"
    if "chat" in asked:
        planner = _described(chat)
    sentence = f"{writers}; planned by {planner}"
    by_rules = sum(cycle.made_by == "rules" for cycle in report.cycles)
    if by_rules and "chat" in asked:
        sentence += f", which gave no usable plan in {by_rules} of {len(report.cycles)} cycles"
    return f"{sentence}.{_left_out_words(report)}"


def _left_out_words(report: Report) -> str:
    """Which parameters the servers of which models refuse, or ''."""
    refused: dict[str, set[str]] = {}
    for use in report.asked:
        refused.setdefault(use.model, set()).update(use.left_out)
    return "".join(
        f" The server of {model} refuses {', '.join(sorted(names))}: sent without."
        for model, names in refused.items()
        if names
    )


def _described(backend: Mapping[str, Any]) -> str:
    if backend.get("url"):
        return f"{backend.get('model')} at {backend['url']}"
    for key, what in (("path", "the checkpoint"), ("recorded", "the recording")):
        if backend.get(key):
            return f"{what} {backend[key]}"
    return {"nano": "hullward-nano-cif"}.get(str(backend.get("word")), str(backend.get("word")))
