"""Rows about the same image -> a row with all its queries, and back; rows asked the wrong one."""

import random
from collections import Counter, defaultdict

from datasets import Dataset, concatenate_datasets

OF_THE_IMAGE = ("image_id", "image", "images", "image_size", "frames")


def group_by_image(dataset: Dataset, max_conversations: int | None = 20, seed: int = 0) -> Dataset:
    """A row for each `image_id`, with its conversations as `queries`: a list of what is not the image's own.

    Rows with the same `image_id` have to have the same images; one without stays by itself. More than
    `max_conversations` go to several rows; which conversations come together, and the order of rows, is drawn by
    `seed`. No image is decoded. With one conversation a row there is nothing to group: the rows stay as they are.
    `SharedImageCollator` reads such rows, and so do the collators of BLIP-2, LISA and SurgViVQA.
    """
    if max_conversations == 1:
        return dataset
    places = defaultdict(list)
    for i, image_id in enumerate(dataset["image_id"]):
        places[("row", i) if image_id is None else image_id].append(i)
    queries = dataset.remove_columns([name for name in OF_THE_IMAGE if name in dataset.column_names]).to_list()
    rng, groups = random.Random(seed), []
    for members in places.values():
        rng.shuffle(members)
        parts = -(-len(members) // (max_conversations or len(members)))
        size = -(-len(members) // parts)  # about as many in each row
        groups += [members[start : start + size] for start in range(0, len(members), size)]
    rng.shuffle(groups)
    images = dataset.select([members[0] for members in groups])
    images = images.select_columns([name for name in ("id", *OF_THE_IMAGE) if name in dataset.column_names])
    grouped = Dataset.from_dict({"queries": [[queries[i] for i in members] for members in groups]})
    return concatenate_datasets([images, grouped], axis=1)


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
