"""How a picture is hashed where not all of it is seen."""

import numpy as np
from PIL import Image

from tests.rows.test_usable import encoded, picture
from vlm_recipes.callbacks.preflight.near_duplicates import near_duplicates
from vlm_recipes.rows.background import on_background
from vlm_recipes.rows.pictures import inspect_picture


def cut_out(seed: int, hidden: str) -> Image.Image:
    """A square of a picture; around it is nothing, and `hidden` under that."""
    whole = Image.new("RGBA", (160, 120), hidden)
    whole.putalpha(0)
    whole.paste(picture(8, 8, seed).resize((80, 80)), (40, 20))
    return whole


def test_pictures_that_look_alike_have_one_hash_whatever_colour_is_hidden_in_them():
    hashes = [inspect_picture(encoded(cut_out(0, hidden)))[1] for hidden in ("red", "lime")]
    assert hashes[0] == hashes[1] == inspect_picture(encoded(on_background(cut_out(0, "blue"))))[1]
    others = [inspect_picture(encoded(cut_out(seed, "red")))[1] for seed in range(1, 6)]
    assert near_duplicates(hashes[:1], [*others, hashes[1]]).tolist() == [5]
    assert near_duplicates(hashes[:1], others).tolist() == [-1]  # though the same red is hidden in all of them


def test_an_opaque_alpha_channel_changes_no_hash():
    plain = Image.fromarray(np.kron(np.asarray(picture(8, 6)), np.ones((40, 40, 1), np.uint8)))
    assert inspect_picture(encoded(plain.convert("RGBA"))) == inspect_picture(encoded(plain))
