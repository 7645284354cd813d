"""What is true stands where it belongs on a row's own picture: torchvision's boxes, masks eroded by SciPy."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_erosion
from torchvision.utils import draw_bounding_boxes

from vlm_recipes.eval.drawing import TRUE_COLOR
from vlm_recipes.eval.drawn_row import draw_row
from vlm_recipes.eval.metrics.masks import encode

NOISE = np.random.default_rng(0).integers(0, 100, (60, 90, 3), dtype=np.uint8)
BOX = [10, 5, 80, 20]  # wide and above; transposed it would be [5, 10, 20, 80]


def picture() -> Image.Image:
    return Image.fromarray(NOISE)


def green(drawn: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) == TRUE_COLOR).all(axis=-1)


def place(*box: int) -> np.ndarray:
    """A mask of the picture's size that covers the box."""
    mask = np.zeros(NOISE.shape[:2], dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_boxes_are_torchvision_s_on_the_enlarged_picture():
    boxes = [BOX, [30, 30, 50, 55]]
    drawn = draw_row({"image": picture(), "boxes": boxes})
    enlarged = torch.from_numpy(NOISE.repeat(3, axis=0).repeat(3, axis=1)).permute(2, 0, 1)
    expected = draw_bounding_boxes(enlarged, 3 * torch.tensor(boxes), colors=TRUE_COLOR, width=3)
    assert drawn.size == (270, 180) and np.array_equal(np.asarray(drawn), expected.permute(1, 2, 0).numpy())


def test_a_transposed_box_is_seen_to_be_one():
    right, wrong = (green(draw_row({"image": picture(), "boxes": [box]})) for box in (BOX, [5, 10, 20, 80]))
    left, below = (slice(18, 57), slice(30, 33)), (slice(66, 180), slice(None))  # rows, columns
    assert right[left].all() and not right[below].any()
    assert not wrong[left].all() and wrong[below].any()


def test_the_name_of_each_box_stands_above_it_for_people_to_read():
    boxes, names = [[10, 25, 80, 40], [30, 45, 50, 58]], ["lamp", "table"]
    bare, named = (draw_row({"image": picture(), "boxes": boxes, **own}) for own in ({}, {"categories": names}))
    changed = (np.asarray(bare) != np.asarray(named)).any(axis=-1)
    for left, top in ((30, 75), (90, 135)):  # of the boxes, three times as large
        assert changed[top - 10 : top, left : left + 20].all()
        changed[top - 20 : top, left : left + 60] = False
    assert not changed.any()


def test_a_large_picture_is_reduced_and_its_boxes_with_it():
    drawn = green(draw_row({"image": Image.new("RGB", (4096, 2048)), "boxes": [[400, 1200, 2000, 1600]]}))
    rows, columns = np.nonzero(drawn)
    assert drawn.shape == (512, 1024)
    assert [columns.min(), rows.min(), columns.max(), rows.max()] == [100, 300, 500, 400]


def test_masks_are_outlined_where_they_are_and_what_is_ignored_is_hatched():
    mask = place(*BOX)
    row = {"image": picture(), "masks": [encode(mask)], "ignore": None}
    drawn, enlarged = draw_row(row), mask.repeat(3, axis=0).repeat(3, axis=1)
    outline = enlarged & ~binary_erosion(enlarged, np.ones((3, 3)), iterations=4)
    assert np.array_equal(green(drawn), outline)
    untouched = (np.asarray(drawn) == NOISE.repeat(3, axis=0).repeat(3, axis=1)).all(axis=-1)
    assert np.array_equal(untouched, ~enlarged)
    ignored = np.asarray(draw_row(row | {"ignore": encode(place(0, 40, 30, 60))}))
    assert (ignored != np.asarray(drawn)).any(axis=-1)[120:, :90].all()


def test_of_an_image_with_queries_the_first_one_s_is_drawn():
    masks = [place(*BOX), place(40, 30, 60, 50)]
    queries = [{"masks": [encode(mask)], "ignore": None} for mask in masks]
    alone = draw_row({"image": picture(), **queries[0]})
    assert np.array_equal(green(draw_row({"image": picture(), "queries": queries})), green(alone))


def test_pictures_stand_upright_and_on_the_run_s_background():
    lying, sideways = picture(), Image.Exif()
    sideways[0x0112] = 6  # to be turned by 90 degrees
    lying.info["exif"] = sideways.tobytes()
    drawn = draw_row({"images": [lying], "boxes": [[5, 10, 20, 80]]})
    assert drawn.size == (180, 270) and green(drawn)[30:240, 15].all()
    clear = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    for background, color in (("white", (255, 255, 255)), ("black", (0, 0, 0))):
        assert draw_row({"image": clear, "boxes": []}, background).getcolors() == [(90_000, color)]


@pytest.mark.parametrize(
    "row",
    [
        {"image": picture(), "question": "?", "answer": "yes"},
        {"image": picture(), "boxes": None, "masks": None},
        {"images": [picture(), picture()], "boxes": [BOX]},
        {"frames": ["1.png", "2.png"], "boxes": [BOX]},
        {"image": "a path.png", "boxes": [BOX]},
        {"images": [], "boxes": []},
    ],
)
def test_nothing_is_drawn_for_rows_of_another_kind(row):
    assert draw_row(row) is None


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="true mask"):
        draw_row({"image": picture(), "masks": [encode(place(*BOX).T)]})
