"""Folders that public tools wrote in one format are no other format's, and an annotated picture has its size."""

import datasets
import pytest

from tests.support.annotated import BOXES, SIZE, as_supervision, picture
from vlm_recipes.rows.check import check_row
from vlm_recipes.rows.conventions import ANNOTATED_SIZE
from vlm_recipes.rows.formats import coco, labelme, pairs, voc, yolo

READERS = (coco, labelme, pairs, voc, yolo)


@pytest.mark.parametrize("written", [coco, labelme, voc, yolo])
@pytest.mark.parametrize("pictures", ["images", "."])
def test_only_one_reader_recognises_what_supervision_writes(tmp_path, written, pictures):
    drawn, place = as_supervision(tmp_path / "drawn", BOXES), tmp_path / "data"
    images, notes = str(place / pictures), str(place / ("labels" if pictures == "images" else "."))
    if written is coco:
        drawn.as_coco(images_directory_path=images, annotations_path=f"{notes}/instances.json")
    elif written is labelme:
        drawn.as_labelme(images_directory_path=images, annotations_directory_path=notes)
    elif written is voc:
        drawn.as_pascal_voc(images_directory_path=images, annotations_directory_path=notes)
    else:
        drawn.as_yolo(
            images_directory_path=images, annotations_directory_path=notes, data_yaml_path=str(place / "data.yaml")
        )
    assert [reader for reader in READERS if reader.recognises(place)] == [written]
    assert len(written.read_boxes(place).splits["all"]) == len(BOXES)


def test_a_picture_of_another_size_than_the_annotated_one_is_refused(tmp_path):
    row = {"id": "a", "image": {"bytes": None, "path": str(picture(tmp_path / "a.png"))}}
    width, height = SIZE
    for size, reason in (
        ([width, height], ""),
        (None, ""),
        ([height, width], "annotated on a picture of 48×64, and this one has 64×48: correct either"),
    ):
        assert check_row({**row, ANNOTATED_SIZE: size}, 0, lambda row: {}, datasets.Features())[1] == reason
