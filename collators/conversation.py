"""Messages -> text, in segments that say which part the assistant spoke."""

from functools import cache
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast, ProcessorMixin

from ..rows.formats.chat import text_of

Messages = list[dict[str, Any]]
Segments = list[tuple[str, bool]]


def clean_messages(messages: Messages, n_images: int, placeholders: tuple[str, ...]) -> Messages:
    """Copy messages with their content as lists of parts, one `{"type": "image"}` part per image.

    Arrow gives every part the union of keys (`{"type": "text", "text": …, "image": None}`) and Qwen2-VL's template
    takes a None `image` for an image, so None keys go. A text that spells an image placeholder would claim an image:
    a space after its first character makes it ordinary text. Images that no message mentions go before the first
    user text, as in TRL.

    Raises `ValueError` if the messages mention another number of images than the row has, have something else than
    text and images in them, or start with the assistant.
    """
    if not messages or messages[0]["role"] == "assistant":
        raise ValueError("the messages have to start with a system or user message")
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


def render(
    processor: ProcessorMixin, messages: Messages, chat_template: str | None = None, prompt_only: bool = False
) -> Segments:
    """Render cleaned messages as `(text, spoken by the assistant)` segments; joined, they are the whole conversation.

    An assistant's segment runs from just after the generation prompt to its end-of-turn token, without the white
    space after it. A template that writes no end-of-turn token (LLaVA-1.5) gets the tokenizer's `eos_token` there,
    or the model would never learn to stop. With `prompt_only` the last assistant turn is left out and the generation
    prompt ends the text: the very prefix that training shows.

    Raises `ValueError` for a template whose earlier text changes when a message is added.
    """
    eos = processor.tokenizer.eos_token

    @cache  # the last turn's text is mostly that of the whole
    def rendered(upto: int, add_generation_prompt: bool) -> str:
        return processor.apply_chat_template(
            messages[:upto], chat_template=chat_template, add_generation_prompt=add_generation_prompt, tokenize=False
        )

    if prompt_only and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    segments, done = [], 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, turn = rendered(i, True), rendered(i + 1, False)
        if not turn.startswith(prompt) or len(prompt) < done:
            raise ValueError("the chat template rewrites earlier text when a message is added; pass another template")
        segments.append((prompt[done:], False))
        answer = turn[len(prompt) :].rstrip()
        done = len(prompt) + len(answer)
        if _squeezed(answer).endswith(_squeezed(text_of(message))) and not answer.endswith(eos):
            answer, done = answer + eos, len(turn)
        segments.append((answer, True))
    if rest := rendered(len(messages), prompt_only)[done:]:
        segments.append((rest, False))
    return segments


def encode(tokenizer: PreTrainedTokenizerFast, segments: Segments) -> BatchEncoding:
    """Tokenize rendered segments, with offsets into the joined text.

    Llama's tokenizer starts a text with `<s>`, which LLaVA's template leaves to it; one that writes it gets no second.
    Spelt in the text instead, it would change the token after it (`USER` for `▁USER`).
    """
    text, bos = "".join(text for text, _ in segments), tokenizer.bos_token
    return tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)), return_offsets_mapping=True)


def _squeezed(text: str) -> str:
    return "".join(text.split())
