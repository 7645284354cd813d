"""Rows about the same image -> a row with all its queries, and back; rows asked the wrong one."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from ..models.upstream import selected_from
from .beside import beside
from .conventions import Row
from .images import bytes_in
from .paths import picture_columns

OF_THE_IMAGE = ("image_id", "image_ids", "image", "images", "image_size", "image_sizes", "frames")
OF_THE_IMAGE += ("image_hash", "image_hashes")


class DrawnAnew:
    """The transform of grouped rows: places in `queries` -> the questions that this epoch has drawn for them.

    Args:
        questions: a row each, without what is the image's own.
        images: per question the number of its image `[Q]`; the places of an image's questions follow each other.
        reworded: what is read of a question, given a source of random numbers of its own in each epoch.
    """

    def __init__(
        self, questions: Dataset, images: np.ndarray, seed: int, reworded: Callable[[Row, random.Random], Row] | None
    ):
        self.questions, self.images = questions.with_format(None), images
        self.seed, self.reworded = seed, reworded
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # workers that outlive an epoch see it, too
        self._drawn = -1, images

    def set_epoch(self, epoch: int) -> None:
        """Draw which of an image's questions come together, and their wordings: by the seed and `epoch` alone."""
        self.epoch.fill_(epoch)
        self.order()

    def order(self) -> np.ndarray:
        """For each place the number of its question in the present epoch, `[Q]`."""
        epoch = int(self.epoch)
        if self._drawn[0] != epoch:
            drawn = np.random.default_rng([self.seed, epoch]).random(len(self.images))
            self._drawn = epoch, np.lexsort((drawn, self.images))
        return self._drawn[1]

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return rows | {"queries": [self._at(places) for places in rows["queries"]]} if "queries" in rows else rows

    def _at(self, places: list[int]) -> list[Row]:
        numbers = self.order()[places].tolist()
        columns = self.questions[numbers]  # twenty times as fast as `select(numbers).to_list()`
        queries = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if self.reworded is None:
            return queries
        sources = (random.Random(f"{self.seed} {self._drawn[0]} {number}") for number in numbers)
        return [self.reworded(query, source) for query, source in zip(queries, sources, strict=True)]


def group_by_image(
    dataset: Dataset,
    max_conversations: int | None = 20,
    seed: int = 0,
    reworded: Callable[[Row, random.Random], Row] | None = None,
) -> Dataset:
    """A row for each `image_id`, with its conversations as `queries`: a list of what is not the image's own.

    Rows with the same `image_id` have to have the same images: `ValueError` is raised where they have more or fewer,
    or files of another length, and where there is no such column. A row of None stays by itself. More than
    `max_conversations` go to several.
    Which come together is drawn by `seed`, and anew in each epoch where `vlm_recipes.callbacks.SharedImageCallback`
    says that one begins (else what `set_epoch` of the rows' transform was told last); so is what `reworded` makes of
    each. The number of rows is that of all epochs. No image is decoded, and no question before its row is read. With
    one conversation a row there is nothing to group: the rows stay as they are, unless they are `reworded`.
    `SharedImageCollator` reads such rows, and so do the collators of BLIP-2, LISA and SurgViVQA.
    """
    if max_conversations == 1 and reworded is None:
        return dataset
    if "image_id" not in dataset.column_names:
        raise ValueError(f"rows are grouped by 'image_id', and have only {', '.join(dataset.column_names)}: add it")
    images = _numbered(dataset["image_id"][:])
    _refuse_other_images(dataset, images)
    questions = dataset.remove_columns([name for name in OF_THE_IMAGE if name in dataset.column_names])
    drawn = DrawnAnew(questions, images, seed, reworded)
    begins, lengths = _shares(np.bincount(images), max_conversations)
    order = list(range(len(begins)))
    random.Random(seed).shuffle(order)
    begins, lengths = begins[order], lengths[order]
    ends = np.cumsum(lengths)
    places = np.arange(lengths.sum()) + np.repeat(begins - ends + lengths, lengths)
    queries = Dataset(pa.table({"queries": pa.ListArray.from_arrays(np.append(0, ends), places)}))
    shown = dataset.select(drawn.order()[begins])
    shown = shown.select_columns([name for name in ("id", *OF_THE_IMAGE) if name in dataset.column_names])
    return beside(queries, shown).with_transform(drawn)


def _numbered(names: Sequence[Any]) -> np.ndarray:
    """The number of each name, `[N]`, by their first appearance; None is another one each time."""
    numbers, known = pd.factorize(np.array(names, dtype=object))
    unnamed = numbers < 0
    numbers[unnamed] = len(known) + np.arange(unnamed.sum())
    return numbers


def _refuse_other_images(dataset: Dataset, images: np.ndarray) -> None:
    """Raise `ValueError` where rows of one image, told by its number, have images that differ unopened."""
    first: dict[int, int] = {}
    pictures = [name for name in picture_columns(dataset) if name in OF_THE_IMAGE]
    looks = list(zip(*(_looks(dataset, name) for name in pictures), strict=True))
    for row, image in enumerate(images.tolist() if looks else ()):
        known = first.setdefault(image, row)
        if looks[row] != looks[known]:
            this, other = (dataset[i].get("id", i) for i in (row, known))
            raise ValueError(
                f"row {this!r}: its image_id {dataset['image_id'][row]!r} has other images in row {other!r}"
            )


def _looks(dataset: Dataset, column: str) -> list[Any]:
    """Of each row how many bytes its image has, or its path where there is no such file; a list for several."""
    whole, numbers = selected_from(dataset)
    stored = whole.data.column(column)
    several = picture_columns(dataset)[column]
    flat = pc.list_flatten(stored) if several else stored
    data, path = pc.struct_field(flat, "bytes"), pc.struct_field(flat, "path")
    sizes = {name: bytes_in(name) or name for name in pc.unique(path).to_pylist()}
    lengths = zip(pc.binary_length(data).to_pylist(), path.to_pylist(), strict=True)
    told = [sizes.get(name) if length is None else length for length, name in lengths]
    if several:
        ends = np.cumsum(pc.fill_null(pc.list_value_length(stored), 0).to_numpy())
        told = [told[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    return told if numbers is None else [told[i] for i in numbers]


def _shares(counts: np.ndarray, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Where each row begins, and how many questions it has, of images with so many: at most `most`, about as many."""
    rows = -(-counts // (most or counts))
    sizes, image = np.repeat(-(-counts // rows), rows), np.repeat(np.arange(len(counts)), rows)
    row_of_image = np.arange(len(image)) - np.repeat(np.cumsum(rows) - rows, rows)
    ends = np.cumsum(counts)[image]
    begins = ends - counts[image] + row_of_image * sizes
    return begins, np.minimum(sizes, ends - begins)


def one_per_query(images: Dataset) -> Dataset:
    """A row for each of an image's `queries` (dicts with `id`), with the image's other columns."""
    queries = pa.chunked_array(images.with_format("arrow")["queries"][:]).combine_chunks()
    asked = Dataset(pa.Table.from_struct_array(queries.flatten()))
    shared = images.select(pc.list_parent_indices(queries).to_numpy())
    return beside(asked, shared.remove_columns(["id", "queries"]))


def with_questions_shuffled(rows: Dataset, seed: int) -> Dataset:
    """Each row with the `question` and `messages` of another image's: what is then right, the image alone told.

    Where one image has more than half of the rows, some of them get a question about it.
    """
    images = [(name is None, i if name is None else name) for i, name in enumerate(rows["image_id"][:])]
    shuffled = random.Random(seed).sample(sorted(set(images)), len(set(images)))
    rank = {image: place for place, image in enumerate(shuffled)}
    order = sorted(range(len(rows)), key=lambda i: rank[images[i]])
    shift = max(Counter(images).values()) if len(rank) > 1 else 1
    other = {i: order[(place + shift) % len(order)] for place, i in enumerate(order)}
    asked = rows.select_columns(["question", "messages"]).select([other[i] for i in range(len(rows))])
    return beside(asked, rows.remove_columns(["question", "messages"]))
