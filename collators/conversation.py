"""Messages as they come -> messages as a chat template takes them, whose texts claim no image."""

from typing import Any

from ..rows.formats.chat import refuse_markers

Messages = list[dict[str, Any]]


def clean_messages(messages: Messages, n_images: int, placeholders: tuple[str, ...]) -> Messages:
    """Copy messages with their content as lists of parts, one `{"type": "image"}` part per image.

    Arrow gives every part the union of keys (`{"type": "text", "text": …, "image": None}`) and Qwen2-VL's template
    takes a None `image` for an image, so None keys go. A text that spells an image placeholder would claim an image:
    a space after its first character makes it ordinary text. Images that no message mentions go before the first
    user text, as in TRL, unless a text marks their places, see `refuse_markers`.

    Raises `ValueError` if the messages mention another number of images than the row has, have something else than
    text and images in them, or start with the assistant.
    """
    if not messages or messages[0]["role"] == "assistant":
        raise ValueError("the messages have to start with a system or user message")
    refuse_markers(messages, n_images)
    cleaned = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        parts, run = [], ""  # a run of texts, which a template may join to a placeholder
        for part in content or ():
            if part["type"] == "image":
                parts.append({"type": "image"})
                run = ""
            elif part["type"] != "text":
                raise ValueError(f"content of type {part['type']!r}; only text and image are known")
            elif part.get("text") is not None:
                text = defuse(part["text"], placeholders)
                if any(placeholder in run + text for placeholder in placeholders):
                    text = f" {text}"
                parts.append({"type": "text", "text": text})
                run += text
        cleaned.append({"role": message["role"], "content": parts})

    mentioned = sum(part["type"] == "image" for message in cleaned for part in message["content"])
    if mentioned == 0 and n_images:
        first_user = next((message for message in cleaned if message["role"] == "user"), None)
        if first_user is None:
            raise ValueError(f"{n_images} images, but no user message to show them in")
        first_user["content"] = [{"type": "image"}] * n_images + first_user["content"]
    elif mentioned != n_images:
        raise ValueError(f"the messages mention {mentioned} images, the row has {n_images}")
    return cleaned


def defuse(text: str, placeholders: tuple[str, ...]) -> str:
    """Make a text that spells a placeholder an ordinary text."""
    for placeholder in placeholders:
        text = text.replace(placeholder, f"{placeholder[0]} {placeholder[1:]}")
    return text
