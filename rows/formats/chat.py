"""Chat rows as TRL has them: their messages, and what of a conversation can be trained on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..conventions import Row
from ..errors import BadRow, start_of
from ..images import images_of

# What stands for an image, or around one, in the prompts of the processors that transformers has, and in data written
# for DeepSeek-VL, InternLM-XComposer, LLaVA, MMMU ("<image 1>"), Phi-3-Vision ("<|image_1|>") and VILA.
MARKERS = (
    "<image> </image> <img> </img> <imgpad> <image_placeholder> <image-placeholder> <ImageHere> <image_soft_token> "
    "<start_of_image> <end_of_image> <fake_token_around_image> <global-img> <im_patch> <im_start> <im_end> "
    "<low_res_im_start> <IMG_CONTEXT> [IMG] [IMG_BREAK] [IMG_END] <|image|> <|image_pad|> <|IMAGE_PAD|> <|imgpad|> "
    "<|image_start|> <|image_end|> <|image start|> <|image token|> <|image end|> <|IMAGE_PLACEHOLDER|> "
    "<|img_thumbnail|> <|content_image|> <|vision_start|> <|vision_pad|> <|vision_end|> <|VISION_START|> "
    "<|VISION_END|> <|media_pad|> <|patch|> <|START_OF_IMG|> <|END_OF_IMG|> <|IMG_PATCH|> <|IMG_LINE_BREAK|>"
)
MARKER = re.compile(
    "|".join(map(re.escape, re.findall(r"<\|.*?\|>|<.*?>|\[.*?\]", MARKERS))) + r"|<\|?image[ _]?\d+\|?>"
)
SAID = ("role", "content")  # what of a message is read
AS_PARTS = 'write {"type": "image"}, {"type": "text", "text": …} as the content, each image where it belongs'


def messages_of(row: Row) -> list[Row]:
    """The conversation of a row: its `messages`, or its `prompt` and then its `completion`, both as TRL has them.

    A prompt and its completion are lists of messages, or two texts: what the user says, and what the assistant does
    (TRL gives such texts to the model as they are, without the turns of its template). Where a dataset has a prompt
    beside `messages`, these are the row's.

    Raises `BadRow` for a row with neither or both, with something else under these keys, with `tools`, for a message
    with more than who says what (a call of a tool, a reasoning), and for texts that mark where images belong.
    """
    if row.get("tools"):
        raise BadRow("'tools' is not read: only pictures and what is said are")
    messages, prompt, completion = (row.get(key) for key in ("messages", "prompt", "completion"))
    if messages is not None and completion is not None:
        raise BadRow("both 'messages' and a 'completion': leave one of the two")
    if messages is not None:
        return _listed("messages", messages)
    if prompt is None or completion is None:
        raise BadRow("no 'messages', and no 'prompt' with a 'completion'")
    if isinstance(prompt, str) and isinstance(completion, str):
        told = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        refuse_markers(told, len(images_of(row)))
        return told
    if isinstance(prompt, str) or isinstance(completion, str):
        raise BadRow("of 'prompt' and 'completion' one is a text: two texts are due, or two lists of messages")
    return _listed("prompt", prompt) + _listed("completion", completion)


def untrained_messages(row: Row) -> int:
    """How many of `messages_of` come first and are never trained: those of a `prompt`, as in TRL."""
    if row.get("messages") is not None or row.get("completion") is None:
        return 0
    return 1 if isinstance(row["prompt"], str) else len(row["prompt"])


def _listed(key: str, messages: Any) -> list[Row]:
    if not isinstance(messages, list | tuple):
        raise BadRow(f"{key!r} is a {type(messages).__name__}, and no list of messages")
    for message in messages:
        if not (isinstance(message, Mapping) and {"role", "content"} <= message.keys()):
            raise BadRow(f"{key!r} has something without 'role' and 'content': {start_of(str(message))}")
        if more := [name for name, value in message.items() if name not in SAID and value not in (None, "", [], {})]:
            raise BadRow(f"a message has {more[0]!r}, which is not read: only {', '.join(SAID)} are")
        content = message["content"]
        if not isinstance(content, str | list | tuple | None) or not all(map(_is_part, _parts(message))):
            raise BadRow(f"{key!r} has a content that is no text and no list of parts: {start_of(str(content))}")
    return list(messages)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and "type" in part and isinstance(part.get("text"), str | None)


def refuse_markers(messages: Sequence[Row], n_images: int) -> None:
    """Raise `BadRow` where a text marks the place of an image as models' prompts do, see `MARKERS`.

    Such a mark would be trained as text, with the image elsewhere. Allowed are rows without images, where it is about
    HTML or the like, and those that say by parts `{"type": "image"}` where their images belong.
    """
    parts = [(message["role"], part) for message in messages for part in _parts(message)]
    if not n_images or any(part.get("type") == "image" for _, part in parts):
        return
    for role, part in parts:
        if found := MARKER.search(part.get("text") or ""):
            raise BadRow(f"{found[0]} in a text of the role {role!r} marks the place of an image: {AS_PARTS}")


def _parts(message: Row) -> Sequence[Row]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or ()


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


def behind_system(system: Row, messages: list[Row]) -> list[Row]:
    """A conversation with the system message that stands beside it; `BadRow` where it begins with one of its own."""
    if messages[0]["role"] == "system":
        raise BadRow("a 'system' beside the messages, and a message of that role: keep one of them")
    return [system, *messages]


def refuse_unread(record: Row, *more: str) -> None:
    """Raise `BadRow` where a conversation has something beside it that is no picture and is not said, or `more`."""
    if lost := [key for key in ("video", "videos", "audio", "audios", "tools", *more) if record.get(key)]:
        raise BadRow(f"{lost[0]!r} is not read: only pictures and what is said are")
