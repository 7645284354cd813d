"""Questions about videos -> a batch for SurgViVQA."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from ..rows.errors import BadRow
from ..rows.images import images_of, same_image
from .conversation import defuse
from .images import by_image, named, open_image
from .length import padded


@dataclass
class VideoCollator:
    """Collate rows with `prompt` and `answer`, or with `queries`, a list of such, and a video.

    The video is `frames`, a list of images or paths, or else `image`, which stands still. Rows of a batch with the
    same `image_id` share their video: it is opened once.

    Returns `input_ids` and `attention_mask` `[B, Q]` of the questions, padded on the left; `video_index` `[B]`, which
    says what video a question is about; `pixel_values` `[V, F, 3, H, W]`, or `[V, 1, 3, H, W]` where all videos stand
    still, which the model repeats; and `labels` `[B, T]`: a space, the answer and the end token in the vocabulary of
    `processor.tokenizer`, filled up with -100.

    Args:
        processor: a `vlm_recipes.models.surgvivqa.loading.SurgViVqaProcessor`, with a `question_tokenizer` beside its
            `tokenizer`.
        num_frames: how many frames the model reads.
        prompt_only: for generation; there are no labels.
        background: what is transparent in a picture shows it, a colour's name.

    Raises `ValueError` naming the row whose answer is empty, whose video has another number of frames, or whose
    prompt is longer than the text encoder reads: nothing is ever cut.
    """

    processor: ProcessorMixin
    num_frames: int = 8
    prompt_only: bool = False
    background: str = "white"
    share_images = True

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        shown, video_index, queries = by_image(rows)
        videos = [named(row, self._video, row) for row in shown]
        ids = [named(query, self.question_ids, query["prompt"]) for query in queries]
        batch = self.processor.question_tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        batch = BatchFeature({key: batch[key] for key in ("input_ids", "attention_mask")})
        batch["video_index"] = torch.tensor(video_index)
        frames = max(map(len, videos))
        batch["pixel_values"] = torch.stack([video.expand(frames, -1, -1, -1) for video in videos])
        if not self.prompt_only:
            answers = [torch.tensor(named(query, self._answer, query)) for query in queries]
            batch["labels"] = padded(answers, IGNORE_INDEX)
        return batch

    def answer_ids(self, answer: str) -> list[int]:
        """An answer's tokens, without the end token."""
        tokenizer = self.processor.tokenizer
        text = " " + defuse(answer.strip(), tokenizer.all_special_tokens)
        return tokenizer(text, add_special_tokens=False).input_ids

    def _answer(self, query: dict[str, Any]) -> list[int]:
        if not (query["answer"] or "").strip():
            raise BadRow("no answer")
        return [*self.answer_ids(query["answer"]), self.processor.tokenizer.eos_token_id]

    def question_ids(self, prompt: str) -> list[int]:
        """A prompt's tokens in the text encoder's vocabulary; `BadRow` for more than it reads."""
        tokenizer = self.processor.question_tokenizer
        ids = tokenizer(defuse(prompt, tokenizer.all_special_tokens)).input_ids
        if len(ids) > tokenizer.model_max_length:
            raise BadRow(f"a prompt of {len(ids)} tokens, where the text encoder reads {tokenizer.model_max_length}")
        return ids

    def _video(self, row: dict[str, Any]) -> torch.Tensor:
        """`[1, 3, H, W]` of an image, `[F, 3, H, W]` of a clip."""
        frames = images_of({"images": row.get("frames")}) or images_of(row)
        if len(frames) not in (1, self.num_frames):
            raise BadRow(f"{len(frames)} frames, where the model reads {self.num_frames}")
        images: list[Image.Image] = []
        for i, frame in enumerate(frames):  # a clip at a video's beginning repeats its first frame
            images.append(images[-1] if i and same_image(frame, frames[i - 1]) else open_image(frame, self.background))
        return self.processor.image_processor([images], return_tensors="pt")["pixel_values"][0]
