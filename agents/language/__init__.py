"""The language models of a campaign: opened from its settings, every request and answer stored.

A request is stored before it is sent and an answer before it is parsed, so an interrupted campaign
asks nothing twice. What is asked is decided in `hullward.agents.operators` and `planning`.
"""

from hullward.agents.language.backends import ModelEndpoints, open_endpoints
from hullward.agents.language.grammars import constraint_of
from hullward.agents.language.requests import (
    ModelEndpoint,
    Question,
    RequestSlot,
    complete_requests,
    request_of,
)

__all__ = [
    "ModelEndpoint",
    "ModelEndpoints",
    "Question",
    "RequestSlot",
    "complete_requests",
    "constraint_of",
    "open_endpoints",
    "request_of",
]
