"""A campaign file with the keys that matter, each with its default and a line of meaning."""

from __future__ import annotations

import json
from typing import Any

from hullward.agents.settings.campaign import Campaign

COLUMN = 46  # where the meanings begin
# Keys of a file in their order, and what each means.
MEANINGS = {
    "goal": "a sentence for people and for the chat model",
    "min_elements": "of a candidate; lower: sub-systems too",
    "max_elements": "of a candidate",
    "max_atoms": "in a cell; larger cells take longer to relax",
    "oxidation_states": "allowed ones, e.g. {Fe: [2, 3]}; {}: the usual ones",
    "require_charge_balance": "reject what does not balance",
    "exclude_elements": "elements that no candidate may contain",
    "operators": "how crystals are proposed",
    "budget": "the first limit reached ends the run; it may be raised later",
    "reference": "phases that the hull is made of; or mp, built:NAME, file:PATH",
    "metastable_ev_per_atom": "highest height of a metastable candidate",
    "known_phases": "a folder of your CIFs, or a table: these are not new",
    "seeds_from": "campaign directories whose best candidates become parents",
    "seed": "of every random choice",
    "workers": "worker processes; null: one a core",
    "device": "auto, cpu, cuda, cuda:N; null: auto",
}


def campaign_template(campaign: Campaign, name: str) -> str:
    """The file NAME of a campaign: what defines it, then every default as a comment."""
    systems = ", ".join(campaign.systems)
    fewest, most = campaign.fewest_elements, campaign.most_elements
    defaults = campaign.model_dump(mode="json")
    defaults |= {"min_elements": fewest, "max_elements": most}
    defaults["budget"] = {k: v for k, v in defaults["budget"].items() if v is not None}
    return "\n".join(
        [
            f"# `hullward run {name}` runs this campaign; run again, it goes on where it stopped.",
            "# Lines with a # show defaults: take the # away and change the value.",
            "# All keys: agents/README.md, 'The campaign file'.",
            _line(f"name: {campaign.name}", "of the directory: campaigns/NAME"),
            _line(f"systems: [{systems}]", "candidates have all of these elements"),
            *(_line(f"# {key}: {_flow(defaults[key])}", text) for key, text in MEANINGS.items()),
            "",
        ]
    )


def _line(text: str, meaning: str) -> str:
    return f"{text:<{COLUMN}}  # {meaning}"


def _flow(value: Any) -> str:
    """A value in YAML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    return value if isinstance(value, str) and value else json.dumps(value)
