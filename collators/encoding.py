"""Rendered conversations and their images -> what the processor makes of them, and which tokens are spoken."""

import copy
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from .rendering import Segments

OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")  # by token; the rest is by image
Tokens = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Encoded:
    """The processor's own batch of conversations, see `encode`.

    Args:
        inputs: all that it gave.
        spoken: `[B, S]`, boolean: which tokens the assistant says.
        shown: for each conversation the tokens of each of its images `[n]`, begin, end and row tokens included.
        texts: the same as texts, which the processor puts in place of the images' placeholders.
    """

    inputs: BatchFeature
    spoken: torch.Tensor
    shown: list[list[torch.Tensor]]
    texts: list[list[str]]

    def row(self, i: int) -> Tokens:
        """Tokens and `spoken` `[S]` of one conversation, without padding."""
        there = self.inputs["attention_mask"][i].bool()
        return self.inputs["input_ids"][i][there], self.spoken[i][there]

    def said_of_tokens(self) -> list[str]:
        """Inputs by which not all tokens are alike to the attention, such as an image's that see each other."""
        kinds = self.inputs.get("token_type_ids")
        named = ["token_type_ids"] if kinds is not None and (kinds != kinds[:, :1]).any() else []
        shape = self.inputs["input_ids"].shape
        return named + [key for key, value in self.by_image().items() if value.ndim > 2 and value.shape[:2] == shape]

    def by_image(self) -> dict[str, torch.Tensor]:
        """What is not by token: pixels, grids and alike."""
        return {key: value for key, value in self.inputs.items() if key not in OF_TOKENS}


def encode(
    processor: ProcessorMixin,
    conversations: Sequence[Segments],
    images: Sequence[Sequence[Image.Image]],
    padding_side: str = "right",
) -> Encoded:
    """The processor's call on conversations and the images of each, and where in its tokens the assistant speaks.

    Raises `ValueError` for a processor that does not say where in its tokens a text is.
    """
    texts = ["".join(text for text, _ in segments) for segments in conversations]
    followed, replaced = _followed(processor)
    inputs = followed(
        text=list(texts),
        images=[list(own) for own in images] if any(images) else None,
        text_kwargs={
            "padding": True,
            "padding_side": padding_side,
            "return_offsets_mapping": True,
            **begun(processor.tokenizer, texts[0]),
        },
        common_kwargs={"return_tensors": "pt"},
    )
    starts, ends = inputs.pop("offset_mapping").unbind(-1)
    if not replaced:  # each image is the one token that stands in the text (Mllama), or nobody knows
        token = re.escape(str(processor.image_token))
        for text in texts:
            spans_of = [found.span() for found in re.finditer(token, text)]
            replaced.append([{"span": span, "new_span": span, "replacement": token} for span in spans_of])
    is_text = ends > starts  # padding, and what the tokenizer adds, stands nowhere
    spoken = torch.zeros_like(is_text)
    for i, segments in enumerate(conversations):
        for start, end in spans(segments):
            start, end = (_moved(place, replaced[i]) for place in (start, end))
            spoken[i] |= is_text[i] & (starts[i] >= start) & (starts[i] < end)
    if any(len(own) != len(found) for own, found in zip(images, replaced, strict=True)):
        raise ValueError("the processor does not say where in a text it puts an image's tokens")
    shown = [
        [ids[(first >= new["new_span"][0]) & (last <= new["new_span"][1]) & (last > first)] for new in own]
        for ids, first, last, own in zip(inputs["input_ids"], starts, ends, replaced, strict=True)
    ]
    return Encoded(inputs, spoken, shown, [[new["replacement"] for new in own] for own in replaced])


def encode_alone(processor: ProcessorMixin, segments: Segments, encoded: Encoded, i: int) -> Tokens:
    """Tokens and `spoken` `[S]` of another conversation about the images of the `i`th that is `encoded`.

    As `encode` finds them, without its images: their tokens are put in place of the placeholders, or, where a
    placeholder is no token by itself (Ovis2), the text that they are.
    """
    token = str(processor.image_token)
    placeholder = processor.tokenizer.convert_tokens_to_ids(token)
    ids, spoken = tokenized(processor.tokenizer, segments)
    places = (ids == (-1 if placeholder is None else placeholder)).nonzero().flatten().tolist()
    if len(places) != len(encoded.shown[i]):
        texts = iter(encoded.texts[i])
        whole = [(re.sub(re.escape(token), lambda _: next(texts), text), said) for text, said in segments]
        return tokenized(processor.tokenizer, whole)
    parts, done = [], 0
    for place, own in zip(places, encoded.shown[i], strict=True):
        parts += [(ids[done:place], spoken[done:place]), (own, torch.zeros(len(own), dtype=torch.bool))]
        done = place + 1
    parts.append((ids[done:], spoken[done:]))
    ids, spoken = map(torch.cat, zip(*parts, strict=True))
    return ids, spoken


def tokenized(tokenizer: PreTrainedTokenizerFast, segments: Segments) -> Tokens:
    """Tokens and `spoken` `[S]` of a conversation as text alone: an image is one placeholder."""
    text = "".join(text for text, _ in segments)
    encoded = tokenizer(text, return_offsets_mapping=True, **begun(tokenizer, text))
    starts, ends = torch.tensor(encoded["offset_mapping"]).reshape(-1, 2).unbind(-1)
    spoken = torch.zeros(len(starts), dtype=torch.bool)
    for start, end in spans(segments):
        spoken |= (ends > starts) & (starts >= start) & (starts < end)
    return torch.tensor(encoded["input_ids"]), spoken


def begun(tokenizer: PreTrainedTokenizerFast, text: str) -> dict[str, bool]:
    """Whether the tokenizer begins a text by itself: where the template wrote `bos_token`, there is no second.

    As `apply_chat_template` of transformers has it.
    """
    bos = tokenizer.bos_token
    return {"add_special_tokens": not (bos and text.startswith(bos))}


def spans(segments: Segments) -> list[tuple[int, int]]:
    """From where to where the assistant speaks, in characters of the joined text."""
    found, done = [], 0
    for text, is_spoken in segments:
        if is_spoken:
            found.append((done, done + len(text)))
        done += len(text)
    return found


def check_spoken(tokenizer: PreTrainedTokenizerFast, ids: torch.Tensor, segments: Segments) -> None:
    """Raise `ValueError` where the tokens `[n]` that would be trained do not read as what the assistant says.

    White space does not count, and a tokenizer may normalise what it reads.
    """
    said = "".join(text for text, is_spoken in segments if is_spoken)
    read = _squeezed(tokenizer.decode(ids))
    if read == _squeezed(said):
        return
    normalised = tokenizer.decode(tokenizer(said, add_special_tokens=False)["input_ids"])
    if unicodedata.normalize("NFKC", read) != unicodedata.normalize("NFKC", _squeezed(normalised)):
        raise ValueError(f"the tokens of the answer read {read[:80]!r}, and it is {said[:80]!r}")


def _followed(processor: ProcessorMixin) -> tuple[ProcessorMixin, list[list[dict]]]:
    """The processor, and what it will have put in place of placeholders in each text, once it is called.

    Asked by `return_text_replacement_offsets`, InternVL's and Idefics3's fail where a text without images comes first.
    """
    followed, replaced = copy.copy(processor), []

    def replacing(*arguments, **settings):
        texts, found = processor.get_text_with_replacements(*arguments, **settings)
        replaced.extend(found)
        return texts, found

    followed.get_text_with_replacements = replacing
    return followed, replaced


def _moved(place: int, replaced: Sequence[dict]) -> int:
    """Where a character stands once placeholders before it are replaced."""
    return place + sum(
        (one["new_span"][1] - one["new_span"][0]) - (one["span"][1] - one["span"][0])
        for one in replaced
        if one["span"][1] <= place
    )


def _squeezed(text: str) -> str:
    return "".join(text.split())
