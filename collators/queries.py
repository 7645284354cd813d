"""Images with several queries each -> a row per query; rows asked the wrong one."""

import random
from collections import Counter

from datasets import Dataset, concatenate_datasets


def one_per_query(images: Dataset) -> Dataset:
    """A row for each of an image's `queries` (dicts with `id`), with the image's other columns."""
    queries = [query for queries in images["queries"] for query in queries]
    places = [i for i, queries in enumerate(images["queries"]) for _ in queries]
    columns = {key: [query[key] for query in queries] for key in queries[0]}
    shared = images.select(places).remove_columns(["id", "queries"])
    return concatenate_datasets([Dataset.from_dict(columns), shared], axis=1)


def with_questions_shuffled(rows: Dataset, seed: int) -> Dataset:
    """Each row with the `question` and `messages` of another image's: what is then right, the image alone told.

    Where one image has more than half of the rows, some of them get a question about it.
    """
    images = rows["image_id"][:]
    shuffled = random.Random(seed).sample(sorted(set(images)), len(set(images)))
    rank = {image: place for place, image in enumerate(shuffled)}
    order = sorted(range(len(rows)), key=lambda i: rank[images[i]])
    shift = max(Counter(images).values()) if len(rank) > 1 else 1
    other = {i: order[(place + shift) % len(order)] for place, i in enumerate(order)}
    asked = rows.select_columns(["question", "messages"]).select([other[i] for i in range(len(rows))])
    return concatenate_datasets([rows.remove_columns(["question", "messages"]), asked], axis=1)
