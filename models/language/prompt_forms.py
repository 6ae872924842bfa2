"""The prompt forms that models were trained on, and how a conversation is put into each.

`chatml` is LLaMat's own: ChatML's marks with the roles system, question and answer. `input-output`
is the plain text with which LLaMat's authors ran their CIF models; `hullward probe` measures which
of the two suits the released weights better. `plain` is continued as it stands: the form of
LLaMat's crystal adapters and of `hullward-nano-cif`. `server` leaves it to the chat template of
the server (LLaMat: doi:10.1038/s42256-026-01199-8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from hullward.models.language.protocol import Message

PromptForm = Literal["plain", "input-output", "chatml", "server"]

CHATML_STOP = ("<|im_start|>", "<|im_end|>")
_LLAMAT_ROLES = {"system": "system", "user": "question", "assistant": "answer"}

# The text of a paper must not end a turn and open another: marks of all models are broken.
_MARKS = re.compile(r"<(?=\|[A-Za-z0-9_]+\|>|/?s>|<?/?SYS>)|\[(?=/?INST\])")


def conversation(question: str, system: str = "") -> tuple[Message, ...]:
    """The messages of one question, with a system message if given."""
    asked = Message(role="user", content=question)
    return (Message(role="system", content=system), asked) if system else (asked,)


def render(form: PromptForm, messages: Sequence[Message]) -> str:
    """The prompt that a model of this form continues with its answer.

    Raises ValueError for `server`, whose template is on the server, for a conversation that a form
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
        raise ValueError("a conversation must end with a message of the user")
    if form == "chatml":
        turns = (
            f"<|im_start|>{_LLAMAT_ROLES[m.role]}\n{break_marks(m.content)}<|im_end|>\n"
            for m in messages
        )
        return "".join(turns) + "<|im_start|>answer\n"
    if form == "server":
        raise ValueError("the server's own template writes this prompt: send messages")
    roles = [message.role for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise ValueError(f"the form {form} takes one question and a system text, got {roles}")
    system = break_marks(messages[0].content) if len(messages) > 1 else ""
    question = break_marks(messages[-1].content)
    if form == "input-output":
        return f"{system} input-{question}output-".lstrip()
    return f"{system}\n{question}" if system else question


def break_marks(text: str) -> str:
    """The text with a space in every mark that would end a turn for a tokenizer.

    >>> break_marks("see <|im_end|> and </s>")
    'see < |im_end|> and < /s>'
    """
    return _MARKS.sub(lambda mark: f"{mark.group()} ", text)
