"""JSON of `messages`, as TRL, OpenAI and an imagefolder's metadata.jsonl have them, with paths of pictures -> rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..conventions import Row
from ..errors import BadRow, start_of
from .chat import behind_system, refuse_unread
from .conversations import COLUMNS, counted
from .from_records import Find, as_text, dataset_from, pictures_of, prepared_splits, refuse_more, shown
from .read import Read
from .records import JSON, files_by_split, first_record, found_in, json_file

TITLE = "messages"
PICTURES = ("images", "image", "file_names", "file_name")
OWN = ("image", "path", "image_url", "url")  # keys of a part that names its picture itself
DUE = "objects with `messages`, a list of {role, content}, and `images`"


def recognises(place: Path) -> bool:
    """Whether there is JSON with `messages`."""
    return found_in(place, JSON, _fits)


def read_chats(place: Path) -> Read:
    """Rows `{id, image_id, messages, images, kind}`; a content is a list of parts, of type text or image.

    The pictures are those under one of `PICTURES`, in their order, or those that the parts name themselves (OpenAI's
    `image_url`, with a path in the dataset's folder; a URL is refused). Where texts alone are given the pictures come
    first, see `vlm_recipes.collators.conversation.clean_messages`, which also compares their number with the parts'.
    A `system` beside the messages comes first, and a row with a video or tools is refused, as in `conversations`.
    """
    splits = prepared_splits(TITLE, place, files_by_split(place, JSON, _fits, DUE), _read)
    return Read(splits, counted(splits))


def _read(root: Path, files: Sequence[Path], scratch: Path) -> datasets.Dataset:
    return dataset_from(root, files, json_file, _chat, COLUMNS)


def _fits(file: Path) -> bool:
    return "messages" in first_record(file)


def _chat(record: Row, find: Find) -> Iterator[Row]:
    yield {"id": as_text("id", record.get("id"))}
    yield shown(pictures_of(record, find, PICTURES))
    yield {"kind": as_text("kind", record.get("kind"))}
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"'messages' is {start_of(str(messages))}, and not a list of messages")
    refuse_unread(record)
    named: list[str | None] = []
    messages = [_message(message, named) for message in messages]
    if system := as_text("system", record.get("system")):
        messages = behind_system({"role": "system", "content": [{"type": "text", "text": system}]}, messages)
    if any(named) and not all(named):
        raise BadRow(f"of {len(named)} parts with an image only {sum(map(bool, named))} name it")
    if any(named):
        own = {"the parts of its messages": named}
        yield shown(pictures_of({**record, **own}, find, (*PICTURES, *own)))
    yield {"messages": messages}


def _message(message: Any, named: list[str | None]) -> Row:
    """A message with its content as parts; the names of the pictures in it are appended to `named`."""
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise BadRow(f"a message without 'role' and 'content': {start_of(str(message))}")
    refuse_more(message, ("role", "content"), "a message")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or not role:
        raise BadRow(f"a message has the role {start_of(str(role))}")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list | None):
        raise BadRow(f"a content is {start_of(str(content))}, and neither a text nor a list of parts")
    return {"role": as_text("role", role), "content": [_part(part, named) for part in content or ()]}


def _part(part: Any, named: list[str | None]) -> Row:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        refuse_more(part, ("type", "text"), "a part of text")
        return {"type": "text", "text": as_text("text", part["text"])}
    if kind not in ("image", "image_url"):
        raise BadRow(f"{start_of(str(part))} is no part of a content: a text or an image is due")
    refuse_more(part, ("type", "index", *OWN), "a part with an image")
    if part.get("index") not in (None, len(named)):
        raise BadRow(f"the image with the index {part['index']} comes in place {len(named)}")
    own = next((part[key] for key in OWN if part.get(key)), None)
    own = own.get("url") if isinstance(own, dict) else own
    if not isinstance(own, str) and (own is not None or kind == "image_url"):
        raise BadRow(f"the picture of a part is {start_of(str(own))}, and not a path")
    named.append(own)
    return {"type": "image"}
