"""Chat rows as TRL has them: what of a conversation can be trained on."""

from collections.abc import Sequence

from ..conventions import Row
from ..errors import BadRow, start_of


def text_of(turn: Row) -> str:
    """What is said in a turn whose content is a list of parts."""
    return "".join(part["text"] for part in turn["content"] if part["type"] == "text")


def check_answers(messages: Sequence[Row], control: Sequence[str]) -> None:
    """Raise `BadRow` unless the assistant has the last turn, and says something in each of its own.

    A picture in an answer is refused, too, and one of the tokens `control` in its text: no answer could be trained.
    """
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"the last turn is not the assistant's, but of the role {messages[-1]['role']!r}")
    for turn in (turn for turn in messages if turn["role"] == "assistant"):
        if any(part["type"] == "image" for part in turn["content"]):
            raise BadRow("a picture in an answer")
        if not text_of(turn).strip():
            raise BadRow("an empty answer")
        if any(token in text_of(turn) for token in control):
            raise BadRow(f"the answer {start_of(text_of(turn))} spells a control token")
