"""ShareGPT's and LLaVA's JSON, `conversations` of `from` and `value` with a marker where each image belongs -> rows.

As LLaVA's docs/Finetune_Custom_Data.md has it (github.com/haotian-liu/LLaVA), ShareGPT4V's, and LLaMA-Factory's
"sharegpt", whose `system` comes first.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets

from ..conventions import Row
from ..errors import BadRow, start_of
from ..paths import files_of
from .chat import behind_system, refuse_unread
from .from_records import Find, as_text, dataset_from, pictures_of, prepared_splits, refuse_more, shown
from .read import CHATS, PICTURE, TEXT, Read
from .records import JSON, files_by_split, first_record, found_in, json_file

TITLE = "conversations"
ROLES = {"system": "system", "human": "user", "user": "user"}
ROLES |= dict.fromkeys(("gpt", "assistant", "chatgpt"), "assistant")
PICTURES = ("image", "images")
COLUMNS = {**CHATS, "images": datasets.List(PICTURE), "kind": TEXT}
DUE = "objects with `conversations`, a list of {from, value}, and `image`"
# DEFAULT_IMAGE_TOKEN of llava/constants.py. `preprocess_multimodal` of llava/train/train.py writes it anew at the
# beginning of its turn and strips the rest: the line break that sets it off is no part of what is said.
MARKER = re.compile(r"\n?<image>\n?")


def recognises(place: Path) -> bool:
    """Whether there is JSON with `conversations`."""
    return found_in(place, JSON, _fits)


def read_chats(place: Path) -> Read:
    """Rows `{id, image_id, messages, images, kind}`, each image a part where its marker `<image>` stood.

    One line break before a marker, and one after it, is dropped. Refused are a row with another number of markers than
    of pictures, one with somebody else than `ROLES` in it, and one with a video or tools.
    """
    splits = prepared_splits(TITLE, place, files_by_split(place, JSON, _fits, DUE), _read)
    return Read(splits, counted(splits))


def counted(splits: dict[str, datasets.Dataset]) -> str:
    """How many conversations there are, and about how many pictures."""
    pictures = {path for rows in splits.values() for path in files_of(rows, "images")}
    return f"{sum(map(len, splits.values())):,} conversations, {len(pictures):,} images"


def _read(root: Path, files: Sequence[Path], scratch: Path) -> datasets.Dataset:
    return dataset_from(root, files, json_file, _chat, COLUMNS)


def _fits(file: Path) -> bool:
    return "conversations" in first_record(file)


def _chat(record: Row, find: Find) -> Iterator[Row]:
    yield {"id": as_text("id", record.get("id"))}
    pictures = pictures_of(record, find, PICTURES)
    yield shown(pictures)
    yield {"kind": as_text("kind", record.get("kind"))}
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise BadRow(f"'conversations' is {start_of(str(turns))}, and not a list of turns")
    refuse_unread(record)
    messages = [_message(turn) for turn in turns]
    if system := as_text("system", record.get("system")):
        messages = behind_system({"role": "system", "content": _parts(system)}, messages)
    markers = sum(part["type"] == "image" for message in messages for part in message["content"])
    if markers != len(pictures):
        hint = ": write <image> in the text where each belongs" if markers < len(pictures) else ""
        raise BadRow(f"{markers} markers <image> for {len(pictures)} images{hint}")
    yield {"messages": messages}


def _message(turn: Row) -> Row:
    if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
        raise BadRow(f"a turn without 'from' and 'value': {start_of(str(turn))}")
    refuse_more(turn, ("from", "value"), "a turn")
    speaker, said = turn["from"], turn["value"]
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise BadRow(f"a turn is from {start_of(str(speaker))}, and not from {', '.join(ROLES)}")
    if not isinstance(said, str):
        raise BadRow(f"the value of a turn is {start_of(str(said))}, and not a text")
    return {"role": role, "content": _parts(as_text("value", said))}


def _parts(text: str) -> list[Row]:
    """A text as parts: each marker an image, and what stands between them, if anything, a text."""
    image = {"type": "image"}
    before, *others = [[{"type": "text", "text": said}] if said else [] for said in MARKER.split(text)]
    return before + [part for after in others for part in (image, *after)]
