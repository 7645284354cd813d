import io
import json
import os
import random
import warnings
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from demo.worlds.packages.dataset import draw_packages
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.loading import load_split
from vlm_recipes.rows.paths import inside
from vlm_recipes.rows.pictures import inspect_picture
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows

EXIF_ORIENTATION = 0x0112


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image | None = None, format: str = "PNG", orientation: int | None = None) -> dict:
    exif = Image.Exif()
    if orientation:
        exif[EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    (image or picture()).save(buffer, format, exif=exif)
    return {"bytes": buffer.getvalue(), "path": None}


def dataset(images: list, **columns) -> datasets.Dataset:
    names = {"id": [f"r{i}" for i in range(len(images))]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    pictures = datasets.Dataset.from_dict({"image": images}, features=features)
    return datasets.concatenate_datasets([datasets.Dataset.from_dict(names | columns), pictures], axis=1)


def keep(row: dict) -> dict:
    return {"id": row["id"], "size": row["image_size"]}


def check(images: list, tmp_path: Path, adapt=keep, max_rejected: float = 1.0, **columns):
    (rows,), refused = usable_rows({"train": dataset(images, **columns)}, adapt, str(tmp_path), max_rejected)
    return rows, refused


def write_folder(folder: Path, rows: list[dict], split: str = "train") -> str:
    """An imagefolder, as `load_dataset` reads it; a row's `file_name` gets a picture."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(rows):
        picture(seed=i).save(folder / split / row["file_name"])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / split / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


# --- bad images and rows


def cut(data: dict, share: float = 0.5) -> dict:
    return {"bytes": data["bytes"][: int(len(data["bytes"]) * share)], "path": None}


BAD = {
    "no image": (None, "no image"),
    "missing file": ({"bytes": None, "path": "/nowhere/gone.png"}, "image file is missing: gone.png"),
    "a folder": ({"bytes": None, "path": "/tmp"}, "image file is missing"),
    "a url": ({"bytes": None, "path": "https://example.org/a.png"}, "image file is missing"),
    "zero bytes": ({"bytes": b"", "path": None}, "not an image"),
    "not an image": ({"bytes": b"GIF? no, plain text", "path": None}, "not an image"),
    "truncated PNG": (cut(encoded()), "cannot be read"),
    "truncated JPEG": (cut(encoded(format="JPEG")), "truncated"),
    "JPEG without its last tenth": (cut(encoded(picture(300, 200), "JPEG"), 0.9), "truncated"),
    "truncated WebP": (cut(encoded(format="WEBP")), "cannot be read"),
    "sliver": (encoded(picture(1005, 5)), "1005×5 pixels is more than 200 times"),
    "sliver upright": (encoded(picture(5, 1005)), "5×1005 pixels is more than 200 times"),
    "unreadable AVIF": (
        {"bytes": encoded(format="AVIF")["bytes"].replace(b"av01", b"av99"), "path": None},
        "cannot be read",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_refused_with_its_id_and_reason(kind, tmp_path):
    bad, reason = BAD[kind]
    rows, refused = check([encoded(), bad, encoded()], tmp_path)
    assert rows["id"] == ["r0", "r2"]
    assert [(row["split"], row["id"]) for row in refused] == [("train", "r1")]
    assert reason in refused[0]["reason"]
    written = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in written.splitlines()] == refused


def test_a_folder_that_a_row_calls_a_picture_is_not_looked_into(tmp_path, monkeypatch):
    (tmp_path / "all" / "of" / "it").mkdir(parents=True)
    looked, walk = [], os.walk
    monkeypatch.setattr("os.walk", lambda top, *more, **named: looked.append(str(top)) or walk(top, *more, **named))
    check([encoded(), {"bytes": None, "path": str(tmp_path / "all")}], tmp_path / "out")
    assert not [folder for folder in looked if folder.startswith(str(tmp_path / "all"))]


@pytest.mark.parametrize("limit", [1199, 500])  # above once the limit Pillow only warns, above twice it refuses
def test_a_bomb_sized_image_is_refused_without_being_decoded(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        rows, refused = check([encoded(picture(20, 20)), encoded(picture(40, 30))], tmp_path)
    assert rows["id"] == ["r0"]
    assert [row["id"] for row in refused] == ["r1"]
    assert "larger than 1199" in refused[0]["reason"] or "exceeds limit of 1000 pixels" in refused[0]["reason"]


def test_without_a_limit_of_pixels_no_image_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert check([encoded()], tmp_path)[1] == []


def test_an_image_exactly_200_times_longer_than_wide_is_used(tmp_path):
    assert check([encoded(picture(1000, 5))], tmp_path)[1] == []


def raising(row: dict, error: Exception) -> dict:
    if row["id"] == "r1":
        raise error
    return keep(row)


@pytest.mark.parametrize(
    "error",
    [
        BadRow("the box is inverted"),
        ValueError("cannot convert float NaN to integer"),
        KeyError("answer"),
        IndexError("list index out of range"),
        TypeError("'NoneType' object is not iterable"),
        AttributeError("'NoneType' object has no attribute 'strip'"),
        OverflowError("cannot convert float infinity to integer"),
        ZeroDivisionError("division by zero"),
    ],
)
def test_a_row_that_the_adapter_cannot_use_is_refused_with_the_reason(error, tmp_path):
    rows, refused = check([encoded()] * 3, tmp_path, partial(raising, error=error))
    assert rows["id"] == ["r0", "r2"]
    assert [row["id"] for row in refused] == ["r1"]
    assert str(error) in refused[0]["reason"]
    assert type(error).__name__ in refused[0]["reason"] or type(error) is BadRow


def test_a_bad_row_without_a_message_is_refused_too(tmp_path):
    assert check([encoded()] * 2, tmp_path, partial(raising, error=BadRow()))[0]["id"] == ["r0"]


def test_a_value_that_no_column_can_hold_is_the_rows_fault(tmp_path):
    kept = {"r0": 1, "r1": object(), "r2": "half a pair \ud800", "r3": 10**30, "r4": 2}
    rows, refused = check([encoded()] * 5, tmp_path, lambda row: {"id": row["id"], "value": kept[row["id"]]})
    assert rows["id"][:] == ["r0", "r4"] and rows["value"][:] == [1, 2]
    reasons = {row["id"]: row["reason"].partition(":")[0] for row in refused}
    assert reasons == {"r1": "ArrowInvalid", "r2": "UnicodeEncodeError", "r3": "OverflowError"}


def test_rows_that_differ_in_what_a_column_holds_are_refused_together(tmp_path):
    with pytest.raises(DataError, match="differ in what a column holds: .*value.* int64 vs string"):
        check([encoded()] * 501, tmp_path, lambda row: {"id": row["id"], "value": "x" if row["id"] == "r500" else 1})


def test_rows_are_named_by_id_then_image_id_then_qid_then_number(tmp_path):
    names = {"image_id": [None, None, "a"], "qid": [None, 7, 7]}
    bad = dataset([None] * 3, **names).remove_columns("id")
    with pytest.raises(DataError):
        usable_rows({"test": bad}, keep, str(tmp_path), 1.0)
    written = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == ["row 0", "7", "a"]


def test_an_image_id_that_names_two_pictures_is_refused_where_it_names_the_second(tmp_path):
    """Questions are grouped by it: all of a study's would be asked about its first picture."""
    shown = [encoded(picture(seed=seed)) for seed in (0, 0, 1, 1, 0, 2)] + [None]
    names = ["a", "a", "a", "b", "b", None, "b"]
    rows, refused = check(shown, tmp_path, lambda row: keep(row) | {"image_id": row["image_id"]}, image_id=names)
    assert rows["id"][:] == ["r0", "r1", "r3", "r5"]
    why = "its image_id '{}' is that of another picture: each picture needs one of its own"
    assert [(row["id"], row["reason"]) for row in refused] == [
        ("r2", why.format("a")),
        ("r4", why.format("b")),
        ("r6", "no image, or one outside the dataset's folder"),
    ]
    assert [json.loads(line)["id"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()] == [
        "r2",
        "r4",
        "r6",
    ]


def test_the_parts_of_a_dataset_may_each_count_their_pictures_anew(tmp_path):
    """As COCO's conversions on the Hub do; and the same picture in another file format is not the same file."""
    splits = {part: dataset([encoded(picture(seed=i))] * 2, image_id=[0, 0]) for i, part in enumerate(("a", "b"))}
    seen = []

    def adapt(row):
        seen.append(row["image_id"])
        return keep(row) | {"image_id": row["image_id"] or "none"}

    parts, refused = usable_rows(splits, adapt, str(tmp_path), 0.0)
    assert not refused and [rows["image_id"][:] for rows in parts] == [["0", "0"]] * 2 and set(seen) == {"0"}


def test_more_refused_rows_than_max_rejected_stop_the_run(tmp_path):
    images = [None, *[encoded()] * 9]
    assert len(check(images, tmp_path, max_rejected=0.1)[0]) == 9
    with pytest.raises(
        DataError, match="^1 of 10 rows were refused, more than max_rejected=0.09 allows; .*'r0': no image"
    ):
        check(images, tmp_path, max_rejected=0.09)
    assert "r0" in (tmp_path / "rejected.jsonl").read_text()


def test_max_rejected_counts_all_splits_together(tmp_path):
    splits = {"train": dataset([encoded()] * 9), "test": dataset([encoded(), None])}
    (train, test), refused = usable_rows(splits, keep, str(tmp_path), 0.1)
    assert (len(train), len(test)) == (9, 1)
    assert refused == [{"split": "test", "id": "r1", "reason": refused[0]["reason"]}]


def test_a_split_without_a_usable_row_stops_the_run_in_one_line(tmp_path):
    splits = {"train": dataset([encoded()] * 9), "test": dataset([None])}
    with pytest.raises(
        DataError, match="no row of 'test' can be used \\(1 refused\\), for example 'r0': no image"
    ) as error:
        usable_rows(splits, keep, str(tmp_path), 1.0)
    assert "\n" not in str(error.value)


def test_an_empty_split_stops_the_run(tmp_path):
    with pytest.raises(DataError, match="'train' has no rows"):
        check([], tmp_path)


def test_without_a_bad_row_rejected_is_an_empty_file(tmp_path):
    (tmp_path / "rejected.jsonl").write_text("of an earlier run")
    assert check([encoded()], tmp_path)[1] == []
    assert (tmp_path / "rejected.jsonl").read_text() == ""


def test_several_processes_refuse_the_same_rows(tmp_path):
    images = [encoded(), None, cut(encoded()), encoded(format="JPEG"), None, encoded()]
    one = check(images, tmp_path)
    (rows,), refused = usable_rows({"train": dataset(images)}, keep, str(tmp_path), 1.0, num_proc=2)
    assert refused == one[1] and rows["id"] == one[0]["id"] == ["r0", "r3", "r5"]


# --- image_size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_image_size_is_that_of_the_image_as_displayed(format, orientation, tmp_path):
    stored = encoded(picture(48, 16), format, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored["bytes"])))
    assert inspect_picture(stored)[0] == list(upright.size) == ([16, 48] if orientation > 4 else [48, 16])
    (tmp_path / "file").write_bytes(stored["bytes"])
    rows, _ = check([{"bytes": None, "path": str(tmp_path / "file")}], tmp_path)
    assert rows[0]["size"] == list(rows[0]["image"].size)
    assert np.array_equal(np.asarray(rows[0]["image"]), np.asarray(upright))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["JPEG", "PNG", "BMP"]), st.sampled_from("1LPRC"))
def test_image_size_of_small_images_of_every_mode(width, height, format, mode):
    mode = {"R": "RGB", "C": "CMYK"}.get(mode, mode)
    if (format, mode) in (("JPEG", "P"), ("PNG", "CMYK"), ("BMP", "CMYK")):
        mode = "RGB"
    assert inspect_picture(encoded(picture(width, height).convert(mode), format))[0] == [width, height]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_refused_or_can_be_decoded_and_never_anything_else():
    """Cut and changed bytes, in the formats Pillow reads: a decoder may raise whatever it likes."""
    generator, decode = random.Random(0), datasets.Image().decode_example
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "AVIF", "JPEG2000"]
    whole = {format: encoded(picture(96, 64), format, orientation=6)["bytes"] for format in formats}
    used = 0
    for format in formats * 40:
        data = bytearray(whole[format])
        if generator.random() < 0.3:
            del data[generator.randrange(1, len(data)) :]
        for _ in range(generator.randrange(4)):
            data[generator.randrange(min(300, len(data)))] = generator.randrange(256)  # mostly the header
        stored = {"bytes": bytes(data), "path": None}
        try:
            size = inspect_picture(stored)[0]
        except BadRow:
            continue
        assert list(decode(stored).size) == size
        used += 1
    assert used > 50


# --- the usable rows


def answers(row: dict) -> dict:
    return {
        "id": row["id"],
        "size": row["image_size"],
        "answer": row["answer"],
        "boxes": [[row["score"], 1], [2, 3.5]] if row["score"] is not None else [],
        "score": row["score"],
        "count": len(row["answer"]),
        "none": None,
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["answer"]}]}],
    }


def test_usable_rows_are_those_of_a_plain_loop(tmp_path):
    images = [
        encoded(picture(20 + i, 30, seed=i), "JPEG" if i % 2 else "PNG", 6 if i % 3 == 0 else 1) for i in range(8)
    ]
    images[0] = images[5] = None
    (tmp_path / "one.jpg").write_bytes(images[3]["bytes"])
    images[3] = {"bytes": None, "path": str(tmp_path / "one.jpg")}
    columns = {"answer": [f"“ja” {i}" for i in range(8)], "score": [None, 1.0, 2.5, None, -1e9, 0.0, 1e-9, 3.0]}
    rows, refused = check(images, tmp_path, answers, **columns)

    expected = []
    for i, image in enumerate(images):
        if image is None:
            continue
        data = image["bytes"] or Path(image["path"]).read_bytes()
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        raw = {"id": f"r{i}", "image_size": list(upright.size)} | {key: values[i] for key, values in columns.items()}
        expected.append((answers(raw), upright))
    assert len(rows) == len(expected) == 6 and len(refused) == 2
    for row, (values, upright) in zip(rows, expected, strict=True):
        assert np.array_equal(np.asarray(row.pop("image")), np.asarray(upright))
        content = row["messages"][0]["content"]  # Arrow's union of keys, which the collator takes off again
        content[:] = [{key: value for key, value in part.items() if value is not None} for part in content]
        assert row.pop("image_hash") and row == {"image_size": values["size"], **values}


def test_images_are_not_decoded_or_copied_before_a_row_is_read(tmp_path, monkeypatch):
    rows, _ = check([encoded(), None, encoded(picture(90, 90))], tmp_path)
    decoded = []
    original = datasets.Image.decode_example
    monkeypatch.setattr(
        datasets.Image, "decode_example", lambda *args, **kw: decoded.append(1) or original(*args, **kw)
    )
    assert rows["id"] == ["r0", "r2"] and rows.select([1])["size"] == [[90, 90]]
    assert decoded == []
    assert rows[1]["image"].size == (90, 90)
    assert decoded == [1]
    raw = rows.cast_column("image", datasets.Image(decode=False))
    assert raw[1]["image"]["bytes"] == encoded(picture(90, 90))["bytes"]


def lists_of_pictures(images: list) -> datasets.Dataset:
    features = datasets.Features({"images": datasets.List(datasets.Image(decode=False))})
    return datasets.Dataset.from_dict({"images": images}, features=features)


def test_each_picture_of_a_row_is_checked_and_a_bad_one_is_named_by_its_place(tmp_path):
    good, turned = encoded(), encoded(format="JPEG", orientation=6)
    rows = lists_of_pictures([[good, turned], [], None, *([good, bad] for bad, _ in BAD.values()), [turned]])
    (usable,), refused = usable_rows({"train": rows}, lambda row: {"told": row["image_sizes"]}, str(tmp_path), 1.0)
    sizes = [[[40, 30], [30, 40]], [], [], [[30, 40]]]
    assert usable["image_sizes"][:] == usable["told"][:] == sizes
    assert usable["id"][:] == ["row 0", "row 1", "row 2", f"row {len(rows) - 1}"]
    assert [len(hashes) for hashes in usable["image_hashes"]] == [2, 0, 0, 1]
    assert usable["image_hashes"][0][1] == usable["image_hashes"][3][0] == inspect_picture(turned)[1]
    for row, (_, reason) in zip(refused, BAD.values(), strict=True):
        assert reason in row["reason"] and row["reason"].endswith("(picture 2 of 2)")


def test_lists_of_pictures_are_not_decoded_or_copied_before_a_row_is_read(tmp_path, monkeypatch):
    rows = lists_of_pictures([[encoded()], [encoded(picture(90, 90))] * 2])
    (usable,), _ = usable_rows({"train": rows}, lambda row: {"n": len(row["images"])}, str(tmp_path), 0)
    decoded = []
    original = datasets.Image.decode_example
    monkeypatch.setattr(
        datasets.Image, "decode_example", lambda *args, **kw: decoded.append(1) or original(*args, **kw)
    )
    assert usable["n"][:] == [1, 2] and decoded == []
    assert [image.size for image in usable[1]["images"]] == [(90, 90)] * 2 and decoded
    raw = usable.cast_column("images", datasets.List(datasets.Image(decode=False)))
    assert raw[0]["images"] == [encoded()]
    of_rows, of_usable = (
        part.data.column("images").chunks[0].values.field("bytes").buffers()[-1].address for part in (rows, usable)
    )
    assert of_rows == of_usable


def test_one_of_several_pictures_outside_of_the_folder_is_refused(tmp_path):
    outside = tmp_path / "outside.png"
    picture().save(outside)
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    picture().save(folder / "train" / "a.png")
    (folder / "train" / "b.png").symlink_to(outside)
    lines = [json.dumps({"file_names": names, "text": "x"}) for names in (["a.png", "b.png"], ["a.png", "a.png"])]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))
    rows = load_split(str(folder), None, "train", ("images",))
    (usable,), refused = usable_rows({"train": rows}, lambda row: {}, str(tmp_path / "out"), 1.0)
    assert usable["id"][:] == ["row 1"]
    assert refused[0]["reason"] == "no image, or one outside the dataset's folder (picture 2 of 2)"


LATE = {  # the value of an early row and of a late one
    "float after integers": (1, 0.5),
    "text after None": (None, "text"),
    "boxes after empty lists": ([], [[1.5, 2.0]]),
}


def early_or_late(row: dict, values: tuple) -> dict:
    return {"id": row["id"], "value": values[row["late"]]}


def only_late(row: dict) -> dict:
    return {"id": row["id"], **({"value": [1, 2]} if row["late"] else {})}


def late_rows(tmp_path: Path, adapt) -> tuple[datasets.Dataset, list]:
    """Arrow takes its types from the first thousand rows; here everything after them is different."""
    (tmp_path / "a.png").write_bytes(encoded(picture(2, 2))["bytes"])
    image = {"bytes": None, "path": str(tmp_path / "a.png")}
    return check([image] * 1100, tmp_path, adapt, late=[0] * 1050 + [1] * 50)


@pytest.mark.parametrize("case", LATE)
def test_a_type_that_only_late_rows_have_is_no_error(case, tmp_path):
    rows, refused = late_rows(tmp_path, partial(early_or_late, values=LATE[case]))
    assert refused == []
    assert rows["value"] == [LATE[case][0]] * 1050 + [LATE[case][1]] * 50


def test_a_key_that_only_late_rows_have_is_kept(tmp_path):
    assert late_rows(tmp_path, only_late)[0]["value"] == [None] * 1050 + [[1, 2]] * 50


def test_the_first_thousand_rows_may_all_be_refused(tmp_path):
    rows, refused = late_rows(
        tmp_path, lambda row: {"id": row["id"], "value": {0: None}.get(row["late"], "text").upper()}
    )
    assert len(refused) == 1050
    assert rows["value"] == ["TEXT"] * 50


def test_a_row_may_be_handed_on_as_it_is(tmp_path):
    rows, refused = check([encoded()], tmp_path, lambda row: row, answer=["yes"])
    assert refused == []
    assert rows[0]["image"].size == (40, 30) and rows[0]["answer"] == "yes"


def test_drawn_packages_are_refused_where_they_were_broken(tmp_path):
    draw_packages(tmp_path / "data", train=12, val=1, broken=3, seed=3)  # truncated, empty, missing
    raw = load_split(str(tmp_path / "data"), None, "train", ["image_id", "image", "objects"])

    def adapt(row: dict) -> dict:
        return {"id": row["image_id"], "size": row["image_size"], "stored": [row["width"], row["height"]]}

    (rows,), refused = usable_rows({"train": raw}, adapt, str(tmp_path / "out"), 1.0)
    assert len(rows) == 9 and len(refused) == 3
    assert sorted(row["reason"].split(":")[0] for row in refused) == ["image cannot be read"] * 2 + [
        "image file is missing"
    ]
    assert all(row["size"] == row["stored"] == list(row["image"].size) for row in rows)


# --- loading


def test_loading_names_what_is_missing_in_one_line(tmp_path):
    folder = write_folder(tmp_path / "data", [{"file_name": "a.png", "answer": "yes"}])
    for arguments, message in (
        ((str(tmp_path / "nowhere"), None, "train", ["image"]), f"cannot load the dataset '{tmp_path}/nowhere': "),
        ((folder, None, "val", ["image"]), "has no split 'val', only 'train'"),
        ((folder, None, "train", ["image", "question"]), "has no column 'question', only 'image', 'answer'"),
        ((folder, "other", "train", ["image"]), "cannot load the dataset"),
    ):
        with pytest.raises(DataError) as error:
            load_split(*arguments)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_dataset_of_the_hub_is_named(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot load the dataset 'nobody/nothing'"):
        load_split("nobody/nothing", None, "train", ["image"])


@pytest.mark.parametrize(
    "content", ["", "{bad\n", '{"file_name": "a.png", "x": 1}\n{"file_name": "b.png", "x": "s"}\n']
)
def test_a_folder_that_cannot_be_read_says_why(content, tmp_path):
    folder = write_folder(tmp_path / "data", [{"file_name": "a.png"}, {"file_name": "b.png"}])
    (tmp_path / "data/train/metadata.jsonl").write_text(content)
    with pytest.raises(DataError) as error:
        load_split(folder, None, "train", ["image", "x"])
    assert "\n" not in str(error.value) and "An error occurred while generating" not in str(error.value)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "../val/a.png"])
def test_a_file_name_that_leaves_the_folder_is_refused(name, tmp_path):
    picture().save(tmp_path / "secret.png")
    write_folder(tmp_path / "data", [{"file_name": "a.png"}], "val")
    folder = write_folder(tmp_path / "data", [{"file_name": "a.png"}])
    with (tmp_path / "data/train/metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": name}) + "\n")
    with pytest.raises(DataError, match="Invalid metadata file_name"):
        load_split(folder, None, "train", ["image"])


def image_id_and_size(row: dict) -> dict:
    return {"id": row["image_id"], "size": row["image_size"]}


def test_a_second_run_gives_the_same_rows_and_a_changed_file_is_noticed(tmp_path):
    folder = write_folder(tmp_path / "data", [{"file_name": f"{name}.png", "image_id": name} for name in "abc"])

    def run() -> tuple[list, list]:
        raw = load_split(folder, None, "train", ["image"])
        (rows,), refused = usable_rows({"train": raw}, image_id_and_size, str(tmp_path / "out"), 1.0)
        return [(row["id"], row["size"], row["image"].size) for row in rows], [row["id"] for row in refused]

    first = run()
    assert first == run() == ([(name, [40, 30], (40, 30)) for name in "abc"], [])
    picture(50, 20).save(tmp_path / "data/train/a.png")
    (tmp_path / "data/train/b.png").write_bytes(b"")
    assert run() == ([("a", [50, 20], (50, 20)), ("c", [40, 30], (40, 30))], ["b"])


def test_a_file_of_rows_in_memory_is_looked_at_each_time(tmp_path):
    """As VQA-RAD's: the paths stay the same, so the dataset's fingerprint does, too."""
    picture().save(tmp_path / "a.png")
    image = {"bytes": None, "path": str(tmp_path / "a.png")}
    assert check([image], tmp_path)[0][0]["size"] == [40, 30]
    picture(50, 20).save(tmp_path / "a.png")
    assert check([image], tmp_path)[0][0]["size"] == [50, 20]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="image file is missing: a.png"):
        check([image], tmp_path)


# --- paths


def test_a_path_inside_the_root_is_resolved(tmp_path):
    (tmp_path / "root/sub").mkdir(parents=True)
    root = tmp_path / "root"
    assert inside(root, "a.png") == inside(str(root), "sub/../a.png") == str(root / "a.png")
    os.symlink(root / "a.png", root / "link.png")
    assert inside(root, "link.png") == str(root / "a.png")
    os.symlink(root, tmp_path / "other name of the root")
    assert inside(tmp_path / "other name of the root", "a.png") == str(root / "a.png")


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "sub/../../secret.png", "..", "link.png", "folder/secret.png", "a\0.png", "loop"],
)
def test_a_path_outside_the_root_is_none(name, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(tmp_path, root / "folder")
    os.symlink(root / "pool", root / "loop")
    os.symlink(root / "loop", root / "pool")
    assert inside(root, name) is None


def test_a_neighbour_whose_name_starts_alike_is_outside(tmp_path):
    assert inside(tmp_path / "root", "../root2/a.png") is None


# --- hold_out


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from("abcdefghij"), min_size=1), st.floats(0, 0.9), st.integers(0, 5), st.randoms())
def test_no_group_is_in_both_parts_and_the_order_of_rows_does_not_matter(keys, fraction, seed, shuffle):
    def split(keys: list[str]) -> tuple[list, list]:
        rows = datasets.Dataset.from_dict({"image_id": keys, "n": list(range(len(keys)))})
        return tuple(list(part["image_id"]) for part in hold_out(rows, fraction, "image_id", seed))

    rest, held = split(keys)
    assert not set(rest) & set(held)
    assert sorted(rest + held) == sorted(keys)
    assert [key for key in keys if key in rest] == rest  # their order stays
    n_groups = len(set(keys))
    assert len(set(held)) == (max(1, round(fraction * n_groups)) if fraction else 0)
    shuffled = shuffle.sample(keys, len(keys))
    assert set(split(shuffled)[1]) == set(split(keys)[1]) == set(held)
    assert set(split(sorted(set(keys)))[1]) == set(held)  # nor does the number of rows in a group


def test_another_seed_holds_out_other_groups():
    rows = datasets.Dataset.from_dict({"image_id": [str(i) for i in range(50)]})
    assert len({tuple(hold_out(rows, 0.2, "image_id", seed)[1]["image_id"]) for seed in range(5)}) == 5


def test_holding_out_does_not_touch_the_images(tmp_path):
    rows, _ = check([encoded(), encoded(picture(9, 9))], tmp_path)
    rest, held = hold_out(rows, 0.5, "id", 0)
    assert {row["image"].size for part in (rest, held) for row in part} == {(40, 30), (9, 9)}


def test_an_edited_folder_with_a_dataset_card_gives_its_new_rows_and_not_another_folder_s(tmp_path):
    def write(folder: Path, text: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": text}) + "\n")
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '*'\n---\n"
        )

    def read(folder: Path) -> tuple[str, str]:
        row = load_split(str(folder), None, "train", ("text",)).cast_column("image", datasets.Image(decode=False))[0]
        return row["text"], row["image"]["path"]

    first, second = tmp_path / "one" / "data", tmp_path / "two" / "data"
    write(first, "before")
    assert read(first) == ("before", str(first / "a.png"))
    write(first, "after the edit")
    assert read(first)[0] == "after the edit"
    write(second, "after the edit")
    assert read(second) == ("after the edit", str(second / "a.png"))


@pytest.mark.parametrize("images", [["/etc/passwd"], [7]])
def test_a_column_images_that_lists_no_pictures_is_one_line(images, tmp_path):
    rows = datasets.Dataset.from_dict({"id": ["a"], "images": [images]})
    with pytest.raises(DataError, match=r"^'images' of 'train' has List\(.*, and no lists of pictures$"):
        usable_rows({"train": rows}, lambda row: row, str(tmp_path), 0)
