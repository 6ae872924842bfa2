"""The forms in which models were trained to be asked, and how a conversation is put into each.

`chatml` is LLaMat's own: ChatML's marks with the roles system, question and answer. `input-output`
is the plain text that LLaMat's authors ran their CIF models with; which of the two their released
weights know better, `hullward probe` asks them. `plain` is continued as it stands: the form of
LLaMat's crystal adapters and of `hullward-nano-cif`. `server` leaves it to the chat template that
a server holds (LLaMat: doi:10.1038/s42256-026-01199-8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from hullward.models.language.protocol import Message

PromptForm = Literal["plain", "input-output", "chatml", "server"]

CHATML_STOP = ("<|im_start|>", "<|im_end|>")
_LLAMAT_ROLES = {"system": "system", "user": "question", "assistant": "answer"}

# Text of papers must not be able to end a turn and open another: no mark of any model passes.
_MARKS = re.compile(r"<(?=\|[A-Za-z0-9_]+\|>|/?s>|<?/?SYS>)|\[(?=/?INST\])")


def conversation(question: str, system: str = "") -> tuple[Message, ...]:
    """A question, with a system message where there is one."""
    asked = Message(role="user", content=question)
    return (Message(role="system", content=system), asked) if system else (asked,)


def render(form: PromptForm, messages: Sequence[Message]) -> str:
    """The prompt that a model of this form continues with its answer.

    Raises ValueError for `server`, which has no text of its own, for a conversation that a form
    cannot hold, and for one that does not end with a question.

    >>> print(render("chatml", conversation("What is NaCl?", "Be brief.")))
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>question
    What is NaCl?<|im_end|>
    <|im_start|>answer
    <BLANKLINE>
    >>> render("input-output", conversation("Ga As", "Crystals only."))
    'Crystals only. input-Ga Asoutput-'
    """
    if not messages or messages[-1].role != "user":
        raise ValueError("a conversation ends with a question of the user")
    if form == "chatml":
        turns = (
            f"<|im_start|>{_LLAMAT_ROLES[m.role]}\n{defused(m.content)}<|im_end|>\n"
            for m in messages
        )
        return "".join(turns) + "<|im_start|>answer\n"
    if form == "server":
        raise ValueError("the server's own template writes this prompt: send messages")
    roles = [message.role for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise ValueError(f"the form {form} holds one question and a system text, not {roles}")
    system = defused(messages[0].content) if len(messages) > 1 else ""
    question = defused(messages[-1].content)
    if form == "input-output":
        return f"{system} input-{question}output-".lstrip()
    return f"{system}\n{question}" if system else question


def defused(text: str) -> str:
    """The text with a space in every mark that would end a turn for a tokenizer.

    >>> defused("see <|im_end|> and </s>")
    'see < |im_end|> and < /s>'
    """
    return _MARKS.sub(lambda mark: f"{mark.group()} ", text)
