"""Pascal VOC's XML as supervision writes it and as its development kit has it; and broken ones.

host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html: folders, lists, and what a file says.
"""

import os
from pathlib import Path

import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.annotated import BOXES, SIZE, as_supervision, judged, picture
from vlm_recipes.rows.boxes import BoxFormat
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import voc

WHOLE = {  # pixels: supervision rounds to VOC's whole numbers
    "a.png": [("bottle", [3, 2, 20, 40]), ("cup", [30, 5, 60, 44])],
    "b.png": BOXES["b.png"],
    "empty.png": [],
}
CUP = ("cup", [9, 19, 30, 40])  # what `xml` says


def xml(*, name: str = "cup", corners: tuple = (10, 20, 30, 40), size: str | None = None, more: str = "") -> str:
    """A file about one object, after the development kit's."""
    sides = dict(zip(voc.CORNERS, corners, strict=False))
    box = "".join(f"<{side}>{number}</{side}>" for side, number in sides.items())
    size = size if size is not None else f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    parts = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    marks = "<difficult>1</difficult><truncated>1</truncated>"
    return (
        f"<annotation><folder>VOC2012</folder>{size}<object><name>{name}</name>{marks}"
        f"<bndbox>{box}</bndbox>{parts}</object>{more}</annotation>"
    )


def write(folder: Path, files: dict[str, str | bytes], lists: dict[str, str] | None = None) -> Path:
    """`Annotations/` and `JPEGImages/`, and the lists of splits."""
    for name, text in files.items():
        picture(folder / f"JPEGImages/{name}.png")
        file = folder / f"Annotations/{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, text in (lists or {}).items():
        file = folder / f"ImageSets/Main/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


# --- what public tools write


@pytest.mark.parametrize(
    ("pictures", "files"),
    [
        ("{}", "{}"),
        ("{}/images", "{}/annotations"),
        ("JPEGImages/{}", "Annotations/{}"),
        ("images/{}", "annotations/{}"),
    ],
)
def test_what_supervision_writes_is_read_with_its_boxes_and_its_pictures_without_any(tmp_path, pictures, files):
    for split in ("train", "valid"):
        as_supervision(tmp_path / "drawn", BOXES).as_pascal_voc(
            images_directory_path=str(tmp_path / "data" / pictures.format(split)),
            annotations_directory_path=str(tmp_path / "data" / files.format(split)),
        )
    assert voc.recognises(tmp_path / "data")
    read = voc.read_boxes(tmp_path / "data")
    assert judged(read, tmp_path) == ({"train": WHOLE, "valid": WHOLE}, {})
    assert read.counts == "2 categories, 6 images" and read.boxes == BoxFormat("xyxy", "pixels")
    assert read.splits["train"][2]["objects"] == {"bbox": [], "category_name": []}


def test_boxes_are_those_that_supervision_reads_but_for_a_corner_of_zero(tmp_path):
    """Supervision puts it at -1: one pixel outside of the picture."""
    corners = [(1, 1, 64, 48), (10.5, 20, 30, 40.25), (64, 48, 64, 48), (0, 0, 5, 5)]
    write(tmp_path, {f"p{i}": xml(corners=one) for i, one in enumerate(corners)})
    other = supervision.DetectionDataset.from_pascal_voc(str(tmp_path / "JPEGImages"), str(tmp_path / "Annotations"))
    theirs = {Path(path).name: found.xyxy.tolist() for path, _, found in other}
    assert theirs.pop("p3.png") == [[-1, -1, 5, 5]]
    ours = {
        name: [box for _, box in found] for name, found in judged(voc.read_boxes(tmp_path), tmp_path)[0]["all"].items()
    }
    assert ours.pop("p3.png") == [[0, 0, 5, 5]]
    assert ours == theirs and ours["p0.png"] == [[0, 0, 64, 48]]  # the whole picture


def test_the_lists_of_the_development_kit_are_the_splits(tmp_path):
    lists = {"train": "a\n", "val": "b\nc\n", "trainval": "a\nb\nc\n", "cup_train": "a 1\n", "test": "gone\n../a\n"}
    write(tmp_path, dict.fromkeys("abcd", xml()), lists)
    read = voc.read_boxes(tmp_path)
    assert read.counts == "1 category, 3 images, 1 in none of ImageSets/Main"
    problems = {row["id"]: row[PROBLEM] for row in read.splits.pop("test")}
    assert "No such file" in problems["Annotations/gone.xml"] and len(problems) == 2
    assert judged(read, tmp_path) == ({"train": {"a.png": [CUP]}, "val": {"b.png": [CUP], "c.png": [CUP]}}, {})
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    assert len(voc.read_boxes(tmp_path).splits["train"]) == 3  # what trainval lists


def test_a_name_in_a_list_may_have_spaces_and_a_flag_behind_it_is_no_part_of_it(tmp_path):
    """As Windows calls a copy; a class's lists end lines with 1, 0 or -1, which some tools write into all lists."""
    names = ["photo", "photo (1)", "photo 1", "my photo", "b"]
    lists = {"train": "photo\nphoto (1)  \nb  -1\n", "val": "photo 1\nmy photo 1\r\n"}
    write(tmp_path, dict.fromkeys(names, xml()), lists)
    read = voc.read_boxes(tmp_path)
    assert read.counts == "1 category, 5 images"
    pictures = {split: sorted(found) for split, found in judged(read, tmp_path)[0].items()}
    assert pictures == {"train": ["b.png", "photo (1).png", "photo.png"], "val": ["my photo.png", "photo 1.png"]}


def test_a_picture_of_another_name_is_found_by_what_the_file_tells(tmp_path):
    write(tmp_path, {"a": xml(more="<filename>photo.jpg</filename>")})
    os.rename(tmp_path / "JPEGImages/a.png", tmp_path / "JPEGImages/photo.jpg")
    assert judged(voc.read_boxes(tmp_path), tmp_path) == ({"all": {"photo.jpg": [CUP]}}, {})


# --- what is refused

BOMB = """<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""
OUTSIDE = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation><filename>&e;</filename></annotation>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its XML cannot be read: no element found"),
        (xml()[:-5], "its XML cannot be read: "),
        (BOMB, "its XML cannot be read: EntitiesForbidden"),
        (OUTSIDE, "its XML cannot be read: EntitiesForbidden"),
        (b"<annotation>\x00</annotation>", "its XML cannot be read: "),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", "its XML cannot be read: "),
        (xml().encode("utf-16")[3:], "its XML cannot be read: "),
        ("<annotations/>", "its XML is of <annotations>: <annotation> is due"),
        (xml(corners=(10, 20, 30)), "object 1 has no <bndbox> with xmin, ymin, xmax, ymax"),
        (xml(corners=(10, 20, 5, 40)), "object 1: its corners [10.0, 20.0, 5.0, 40.0] have no area"),
        (xml(corners=(10, 20, "nan", 40)), "object 1: xmax, 'nan', is no finite number"),
        (xml(corners=(10, 20, "1e999", 40)), "object 1: xmax, '1e999', is no finite number"),
        (xml(corners=(10, 20, "3_0", 40)), "object 1: xmax, '3_0', is no finite number"),
        (xml(corners=(10, 20, "", 40)), "object 1: xmax, '', is no finite number"),
        (xml(corners=(10, 20, 300, 40)), "is inverted or outside the image of 64×48"),
        (xml(name=" "), "object 1: its <name>, ' ', is empty or no text"),
        (xml(more="<object><name>cup</name></object>"), "object 2 has no <bndbox> with xmin, ymin, xmax, ymax"),
        (
            xml(size="<size><width>48</width><height>64</height></size>"),
            "annotated on a picture of 48×64, and this one",
        ),
        (xml(size="<size><width>wide</width></size>"), "the size of its picture, 'wide', is no finite number"),
    ],
)
def test_a_bad_file_refuses_its_picture_by_name_and_nothing_else(tmp_path, text, reason):
    boxes, refused = judged(voc.read_boxes(write(tmp_path, {"a": text, "b": xml()})), tmp_path)
    assert boxes == {"all": {"b.png": [CUP]}}
    assert refused.keys() == {"Annotations/a.xml"} and reason in refused["Annotations/a.xml"]


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_a_size_that_nobody_has_written_is_not_compared(tmp_path, size):
    assert judged(voc.read_boxes(write(tmp_path, {"a": xml(size=size)})), tmp_path) == ({"all": {"a.png": [CUP]}}, {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_a_file_in_the_encoding_that_it_says_is_read(tmp_path, encoding):
    declared = f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>" + xml(name="café")
    write(tmp_path, {"a": declared.encode(encoding)})
    assert voc.recognises(tmp_path)
    assert judged(voc.read_boxes(tmp_path), tmp_path)[0] == {"all": {"a.png": [("café", CUP[1])]}}


def test_halves_of_pairs_and_pictures_of_one_name_are_refused(tmp_path):
    write(tmp_path, dict.fromkeys(("a", "alone", "twice"), xml()))
    write(tmp_path, dict.fromkeys(("one", "other"), xml(more="<filename>shared.png</filename>")))
    folder = tmp_path / "JPEGImages"
    for name in ("alone", "one", "other"):
        (folder / f"{name}.png").unlink()
    picture(folder / "twice.bmp")
    picture(folder / "shared.png")
    picture(folder / "new.png")
    boxes, refused = judged(voc.read_boxes(tmp_path), tmp_path)
    assert boxes == {"all": {"a.png": [CUP]}}
    assert refused.keys() == {
        *(f"Annotations/{name}.xml" for name in ("alone", "twice", "one", "other")),
        "JPEGImages/new.png",
    }
    assert (
        refused["Annotations/alone.xml"]
        == "there is no picture of its name, and <filename>, None, is empty or no text"
    )
    assert refused["Annotations/twice.xml"] == "2 pictures have this name but for its end: keep one"
    assert refused["Annotations/one.xml"] == "2 XML files are about 'JPEGImages/shared.png': keep one"
    assert refused["JPEGImages/new.png"].startswith("there is no XML file of this name")


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    data, outside = write(tmp_path / "data", {"a": xml()}), write(tmp_path / "outside", {"x": xml()})
    os.symlink(outside / "Annotations/x.xml", data / "Annotations/x.xml")
    os.symlink(outside / "JPEGImages/x.png", data / "JPEGImages/x.png")
    write(data, {"told": xml(more="<filename>../../outside/JPEGImages/x.png</filename>")})
    (data / "JPEGImages/told.png").unlink()
    boxes, refused = judged(voc.read_boxes(data), tmp_path)
    assert boxes == {"all": {"a.png": [CUP]}}
    assert refused == {
        "Annotations/x.xml": "its XML is a link that leaves the dataset's folder",
        "Annotations/told.xml": "no image, or one outside the dataset's folder",
    }


def test_a_folder_without_files_ends_in_one_line(tmp_path):
    with pytest.raises(DataError, match="has no XML files, like Annotations/000005.xml"):
        voc.read_boxes(tmp_path)


@pytest.mark.parametrize("text", ["", "<annotations><image/></annotations>", "<svg/>", "\x00"])
def test_other_folders_are_not_recognised(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    os.mkfifo(tmp_path / "pipe.xml")
    assert not any(map(voc.recognises, (tmp_path, tmp_path / "a.xml", tmp_path / "nowhere")))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.binary(max_size=8) | st.sampled_from([b"<object>", b"</object>", b"<bndbox/>", b"&x;"])))
def test_whatever_is_in_a_file_it_is_a_row(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("fuzzed")
    (row,) = voc.read_boxes(write(folder, {"a": b"<annotation>" + b"".join(texts) + b"</annotation>"})).splits["all"]
    assert row[PROBLEM] or row["objects"]["bbox"] == []


def test_elements_within_a_million_others_are_read_or_refused(tmp_path):
    write(tmp_path, {"a": "<annotation>" + "<a>" * 10**6 + "</a>" * 10**6 + "</annotation>"})
    (row,) = voc.read_boxes(tmp_path).splits["all"]
    assert row["objects"] == {"bbox": [], "category_name": []}
