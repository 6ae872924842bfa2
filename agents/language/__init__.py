"""The language models a campaign asks: opened from its settings, every question and answer stored.

A request is stored before it is sent and an answer before it is read, so an interrupted campaign
asks nothing twice.
"""

from hullward.agents.language.backends import Voices, open_voices
from hullward.agents.language.requests import Ask, Place, Voice, ask_all, request_of

__all__ = ["Ask", "Place", "Voice", "Voices", "ask_all", "open_voices", "request_of"]
