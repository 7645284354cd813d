"""Boxes and masks on a picture: colours, outlines, sizes."""

import time

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion

from vlm_recipes.eval.drawing import (
    IGNORED_COLOR,
    PREDICTED_COLOR,
    TRUE_COLOR,
    draw_boxes,
    draw_masks,
    outline,
    resized,
)

NAN, INF = float("nan"), float("inf")


def rectangle(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(size[::-1], dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_true_boxes_are_green_predicted_ones_orange_and_exact_ones_both():
    image = Image.new("L", (400, 400))
    drawn = draw_boxes(image, [[50, 60, 150, 160], [200, 200, 300, 300]], [[60.4, 70, 160, 170], [200, 200, 300, 300]])
    assert drawn.mode == "RGB" and drawn.size == image.size and image.getextrema() == (0, 0)
    assert drawn.getpixel((50, 110)) == TRUE_COLOR == drawn.getpixel((100, 160))
    assert drawn.getpixel((60, 110)) == PREDICTED_COLOR == drawn.getpixel((160, 120))
    assert drawn.getpixel((200, 250)) == PREDICTED_COLOR and drawn.getpixel((204, 250)) == TRUE_COLOR
    assert drawn.getpixel((250, 250)) == (0, 0, 0)
    assert drawn.getpixel((1, 1)) == (255, 255, 255)  # the legend, in a corner without boxes


def test_without_a_prediction_to_compare_with_no_legend_stands_on_the_picture():
    image, green = Image.new("RGB", (400, 400)), {TRUE_COLOR, (0, 0, 0)}
    assert {color for _, color in draw_boxes(image, [[50, 60, 150, 160]], None).getcolors()} == green
    assert {color for _, color in draw_boxes(image, [], None).getcolors()} == {(0, 0, 0)}
    mask = rectangle((400, 400), 100, 100, 250, 300)
    filled = tuple(round(0.18 * channel) for channel in TRUE_COLOR)
    assert {color for _, color in draw_masks(image, [mask], None).getcolors()} == {*green, filled}
    assert draw_masks(image, [], []).getpixel((1, 1)) == (255, 255, 255)  # "none true", "none predicted"
    hatched = draw_masks(image, [mask], None, rectangle((400, 400), 300, 300, 380, 380))
    assert hatched.getpixel((1, 1)) == (255, 255, 255)  # says what is hatched
    assert PREDICTED_COLOR not in {color for _, color in hatched.getcolors(10_000)}


def test_boxes_that_leave_the_image_end_at_its_border_and_odd_ones_are_harmless():
    image = Image.new("RGB", (100, 80))
    drawn = draw_boxes(image, [[-50, -1e9, INF, 500]], [[90, 70, 20.5, 30], [NAN, 0, 1, 1], [500, 500, 600, 600]])
    assert drawn.getpixel((99, 40)) == TRUE_COLOR == drawn.getpixel((50, 79))
    assert drawn.getpixel((90, 50)) == PREDICTED_COLOR
    assert image.getextrema() == ((0, 0), (0, 0), (0, 0))
    assert draw_boxes(Image.new("CMYK", (1, 1)), [[0, 0, 1, 1]], []).size == (1, 1)


def test_names_stand_above_true_boxes_and_below_predicted_ones_and_inside_where_there_is_no_room():
    image = Image.new("RGB", (400, 400))
    boxes = [[100, 100, 300, 200]], [[100, 240, 300, 300]]
    named, plain = draw_boxes(image, *boxes, ["a table"], ["lamp"]), draw_boxes(image, *boxes)
    for y, color in ((97, TRUE_COLOR), (303, PREDICTED_COLOR)):
        assert named.getpixel((101, y)) == color and plain.getpixel((101, y)) == (0, 0, 0)
        assert named.getpixel((280, y)) == (0, 0, 0), "a tag is as wide as its name"
    full = [[0, 0, 399, 399]]
    inside, bare = draw_boxes(image, full, full, ["a table"], ["lamp"]), draw_boxes(image, full, full)
    for rows, color in ((slice(6, 16), TRUE_COLOR), (slice(384, 394), PREDICTED_COLOR)):
        shares = [(np.asarray(drawn)[rows, 6:40] == color).all(axis=-1).mean() for drawn in (inside, bare)]
        assert shares[0] > 0.3 and shares[1] == 0


def test_odd_names_are_harmless():
    image, box = Image.new("RGB", (200, 200)), [[NAN, 0, 1, 1], [50, 50, 90, 90]]
    for name in ("", " \n", "two\nlines", "\ud800", "\u0645", "\x00", "w" * 10_000):
        assert draw_boxes(image, box, box, [name] * 2, [name] * 2).size == (200, 200)
    drawn = draw_boxes(image, box, [], ["none", "seen"])
    assert drawn.getpixel((51, 46)) == TRUE_COLOR
    assert draw_boxes(Image.new("RGB", (4, 4)), [[0, 0, 3, 3]], [], ["too wide"]).getpixel((2, 2)) != (255, 255, 255)


def test_a_true_mask_has_a_green_outline_a_predicted_one_an_orange_one_and_both_let_the_picture_through():
    size = (512, 400)
    image = Image.new("L", size, 200)
    drawn = draw_masks(image, [rectangle(size, 100, 100, 250, 300)], [rectangle(size, 300, 100, 450, 300)])
    assert drawn.mode == "RGB" and drawn.size == size and image.getextrema() == (200, 200)
    assert drawn.getpixel((100, 200)) == TRUE_COLOR == drawn.getpixel((249, 200))
    assert drawn.getpixel((300, 200)) == PREDICTED_COLOR == drawn.getpixel((449, 200))
    assert drawn.getpixel((500, 390)) == (200, 200, 200)
    for middle, color in (((175, 200), TRUE_COLOR), ((375, 200), PREDICTED_COLOR)):
        filled = np.array(drawn.getpixel(middle))
        towards = np.sign(np.array(color) - 200)
        assert (np.sign(filled - 200) == towards).all() and np.abs(filled - 200).max() < 70
    assert drawn.getpixel((1, 1)) == (255, 255, 255)  # the legend, in a corner without masks


def test_of_an_exact_prediction_both_colours_of_the_outline_are_seen():
    mask = rectangle((512, 512), 100, 100, 400, 400)
    drawn = draw_masks(Image.new("RGB", (512, 512)), [mask], [mask])
    assert drawn.getpixel((101, 250)) == PREDICTED_COLOR and drawn.getpixel((106, 250)) == TRUE_COLOR
    assert drawn.getpixel((109, 250)) not in (PREDICTED_COLOR, TRUE_COLOR)


def test_an_outline_is_what_erosion_takes_away_and_follows_the_border_of_the_image():
    random = np.random.default_rng(0)
    blobs = Image.fromarray(random.integers(0, 256, (9, 12), dtype=np.uint8)).resize(
        (120, 90), Image.Resampling.BICUBIC
    )
    mask = np.asarray(blobs) > 110
    for thickness in (1, 3, 6):
        eroded = binary_erosion(mask, np.ones((3, 3)), iterations=thickness, border_value=0)
        assert np.array_equal(outline(mask, thickness), mask & ~eroded)
    assert outline(np.ones((5, 5), dtype=bool), 1).sum() == 16


def test_masks_that_touch_keep_an_outline_each():
    size = (256, 256)
    drawn = draw_masks(
        Image.new("RGB", size), [rectangle(size, 50, 100, 120, 200), rectangle(size, 120, 100, 200, 200)], []
    )
    assert drawn.getpixel((119, 150)) == TRUE_COLOR == drawn.getpixel((120, 150))


def test_ignored_pixels_are_hatched_in_grey():
    size = (256, 256)
    drawn = draw_masks(Image.new("RGB", size), [], [], rectangle(size, 150, 150, 250, 250))
    values, counts = np.unique(np.asarray(drawn)[150:250, 150:250].reshape(-1, 3), axis=0, return_counts=True)
    assert len(values) == 2 and (values[:, 0] == values[:, 1]).all() and values.max() < max(IGNORED_COLOR)
    assert counts.min() > 2000  # a quarter of 10,000 are stripes
    assert not np.asarray(drawn)[100:140, 130:].any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (256, 256)),
        ((100, 40), (300, 120)),
        ((255, 10), (510, 20)),
        ((256, 100), (256, 100)),
        ((1024, 768), (1024, 768)),
        ((4000, 3000), (1024, 768)),
        ((9000, 2), (1024, 1)),
        ((1, 1), (256, 256)),
    ],
)
def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_reduced(size, expected):
    masks = [rectangle(size, 0, 0, *size)]
    assert draw_masks(Image.new("RGB", size), masks, masks, masks[0]).size == expected


def test_an_enlarged_pixel_keeps_its_colour_and_its_place_under_the_mask():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    drawn = np.asarray(draw_masks(Image.fromarray(picture), [rectangle((64, 64), 40, 40, 60, 60)], []))
    assert np.array_equal(drawn[:160, 120:][::4, ::4], picture[:40, 30:])
    assert (drawn[160:164, 160:240] == TRUE_COLOR).all() and (
        drawn[159, 160:240] == picture[39, 40:60].repeat(4, 0)
    ).all()


def test_a_mask_too_thin_for_the_reduced_picture_is_drawn_nevertheless():
    size = (4096, 4096)
    assert resized(rectangle(size, 2000, 2000, 2001, 2001), (1024, 1024)).sum() == 1
    drawn = draw_masks(Image.new("RGB", size), [rectangle(size, 2000, 0, 2001, 4096)], [])
    assert drawn.getpixel((500, 700)) == TRUE_COLOR


def test_a_picture_of_a_camera_s_size_is_drawn_quickly():
    size = (4000, 3000)
    mask, image = rectangle(size, 100, 100, 3900, 2900), Image.new("RGB", size)
    start = time.process_time()
    draw_masks(image, [mask], [mask], ~mask)
    assert time.process_time() - start < 1.5  # measured: 0.28 s; a slower machine is no failure


def test_masks_may_be_none_or_empty_or_cover_everything():
    image = Image.new("RGB", (300, 300), (10, 20, 30))
    empty, full = np.zeros((300, 300), dtype=bool), np.ones((300, 300), dtype=bool)
    nothing = draw_masks(image, [], [])
    assert np.array_equal(np.asarray(nothing), np.asarray(draw_masks(image, [empty], [empty], empty)))
    assert (np.asarray(nothing)[100:, 150:] == (10, 20, 30)).all()
    assert draw_masks(image, [full], [full], full).getpixel((299, 299)) == PREDICTED_COLOR


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_pictures_of_any_mode_are_drawn_on(mode):
    mask = rectangle((80, 60), 30, 20, 60, 50)
    assert draw_masks(Image.new(mode, (80, 60)), [mask], []).getpixel((120, 140)) == TRUE_COLOR


@pytest.mark.parametrize("wrong", [np.zeros((40, 30), bool), np.zeros((1, 30, 40), bool), np.zeros((30, 40))])
def test_masks_of_another_size_or_type_are_refused_by_name(wrong):
    image = Image.new("RGB", (40, 30))
    right = np.zeros((30, 40), bool)
    with pytest.raises(ValueError, match="^true mask: .*instead of bool of shape \\(30, 40\\)"):
        draw_masks(image, [right, wrong], [])
    with pytest.raises(ValueError, match="^predicted mask"):
        draw_masks(image, [right], [wrong])
    with pytest.raises(ValueError, match="^ignored mask"):
        draw_masks(image, [], [], wrong)
