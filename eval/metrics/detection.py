"""Boxes found, missed and invented at IoU 0.5, by class and in all: precision, recall, F1, average precision."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from .average_precision import ranked
from .boxes import Box, ImageBoxes, Names, category_key, image_boxes
from .number import Number, Scores
from .statistics import interval, numbered

THRESHOLD = 0.5
NAMES = ("precision_50", "recall_50", "f1_50", "ap_50", "ap_50_95")
Pair = tuple[str | None, str | None]


def class_names(names: Iterable[str]) -> dict[str, str]:
    """`category_key` -> the first of its spellings, in the order of the names."""
    classes: dict[str, str] = {}
    for name in names:
        classes.setdefault(category_key(name), name)
    return classes


def paired_classes(image: ImageBoxes) -> list[Pair]:
    """An image's boxes as pairs of a true and a predicted class, each by its key; None where there is no partner.

    Partners have an IoU of at least 0.5. As many boxes as possible are paired within a class, then as many as possible
    of what is left, whatever its class; where that leaves a choice, the summed IoU is largest. So a pair of two
    classes is a box with a wrong name, `(class, None)` a missed box and `(None, class)` an invented one.
    """
    ious, true, predicted = image.ious, image.true, image.predicted
    n = min(ious.shape) + 1
    # one pair more outweighs any sum of IoU, and one more within a class any number of others
    worth = np.where(predicted[:, None] == true, n * (n + 1), n) + ious
    matching = zip(*linear_sum_assignment(np.where(ious >= THRESHOLD, worth, 0), maximize=True), strict=True)
    partner = {ours: theirs for ours, theirs in matching if ious[ours, theirs] >= THRESHOLD}
    missed = set(range(len(true))) - set(partner.values())
    return [
        *((true[theirs], predicted[ours]) for ours, theirs in partner.items()),
        *((true[theirs], None) for theirs in sorted(missed)),
        *((None, key) for ours, key in enumerate(predicted) if ours not in partner),
    ]


def detection_metrics(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    groups: Sequence[str] | None = None,
    predicted_categories: Names | None = None,
    reference_categories: Names | None = None,
    classes: Iterable[str] = (),
    baseline: tuple[Sequence[Sequence[Box]], Names | None] | None = None,
) -> Scores:
    """Count the boxes that are found, missed and invented, over all images together.

    `predictions`, `references`, `groups`, both categories and errors are as for
    `vlm_recipes.eval.metrics.boxes.box_metrics`. `classes` are names whose numbers stand before those of other true
    boxes' classes, in this order. `baseline`: boxes and categories that are answered without a look at the images.

    Returns, with categories also by class:

    - `precision_50`: the share of predicted boxes that are found, of `n` predicted ones;
    - `recall_50`: the share of true boxes that are found, of `n` true ones;
    - `f1_50`: of both, twice the found boxes over predicted and true ones, `n` of these;
    - `ap_50`, `ap_50_95`: average precision as COCO has it at IoU 0.5 and as mean over 0.5, 0.55, … 0.95, of `n` true
      boxes; in all, the mean over the classes that have some. Answers come without scores: their boxes are ranked by
      their order (`average_precision.ranked`), each answer's first before all second ones.

    A box is found if it has a partner of its own class at IoU >= 0.5, one to one, as many as there can be
    (`paired_classes`). A box of no class counts in all, as one that is invented. Precision without a predicted box,
    recall and average precision without a true one and F1 without either are not known, with n = 0: COCO leaves them
    out, too, where scikit-learn warns and has 0. Each number has its 95% bootstrap interval over images, or `groups`,
    of the resamples in which it is known; an average precision's lies a little high where a class has few boxes, for
    of precisions the highest count.
    """
    images = image_boxes(predictions, references, predicted_categories, reference_categories)
    if not images:
        return Scores()
    named = {"": ""}
    if reference_categories is not None:
        named = class_names([*classes, *(name for names in reference_categories for name in names)])
    of_image = numbered(groups, len(images))
    n_groups = of_image.max() + 1
    counts, numbers = _counted(images, list(named), of_image)
    [values], known = numbers(np.ones((1, n_groups))), counts > 0
    low, high, blind = np.full((3, *values.shape), np.nan)
    if n_groups > 1 and known.any():
        low[known], high[known] = interval(n_groups, lambda times: numbers(times)[:, known])
    if baseline is not None:
        others = image_boxes(baseline[0], references, baseline[1], reference_categories)
        [blind] = _counted(others, list(named), of_image)[1](np.ones((1, n_groups)))

    def number(place: tuple[int, int], **more) -> Number:
        value, *ends = (None if np.isnan(of[place]) else float(of[place]) for of in (values, low, high, blind))
        return Number(value, int(counts[place]), *ends, **more)

    return Scores(
        len(images),
        {
            name: number(
                (row, -1),
                groups={own: number((row, i)) for i, own in enumerate(named.values()) if own},
                partial=True,
            )
            for row, name in enumerate(NAMES)
        },
    )


def _counted(
    images: Sequence[ImageBoxes], keys: Sequence[str], of_image: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """What is counted for each of the `NAMES` and classes, in all last, and the numbers of resampled groups.

    The counts are `[5, classes + 1]`, the numbers `[R, 5, classes + 1]` for groups drawn `times` `[R, groups]`.
    """
    column = {key: i for i, key in enumerate(keys)}
    counts = np.zeros((of_image.max() + 1, 3, len(keys) + 1))  # found, predicted, true
    for image, group in zip(images, of_image, strict=True):
        for true, predicted in paired_classes(image):
            for row, key in enumerate((true if true == predicted else None, predicted, true)):
                for place in () if key is None else {column.get(key, -1), -1}:
                    counts[group, row, place] += 1
    by_class = ranked(images, keys, of_image)

    def numbers(times: np.ndarray) -> np.ndarray:
        found, predicted, true = np.moveaxis(np.tensordot(times, counts, 1), 1, 0)
        of_classes = [one.average_precision(times)[..., None] for one in by_class]
        average = np.concatenate([*of_classes, np.zeros((len(times), 2, 0))], axis=-1)
        known = ~np.isnan(average)
        mean = _share(np.where(known, average, 0).sum(axis=-1), known.sum(axis=-1))
        shares = _share(found, predicted), _share(found, true), _share(2 * found, predicted + true)
        return np.concatenate([np.stack(shares, axis=1), np.concatenate([average, mean[..., None]], axis=-1)], axis=1)

    _, predicted, true = counts.sum(axis=0)
    return np.stack([predicted, true, predicted + true, true, true]), numbers


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Not a number of nothing."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
