"""SSG-VQA and Kvasir-VQA at their real sizes, in their real formats; the pictures show noise."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import yaml
from PIL import Image

VIDEOS = Path(__file__).resolve().parent.parent / "recipes" / "ssg_vqa_videos.yaml"
QUESTIONS = 38  # on each of SSG-VQA's 25,020 frames


def picture(noise: np.random.Generator, size: tuple[int, int], format: str) -> bytes:
    """A file of coarse noise of `size`, width and height in pixels."""
    coarse = noise.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, format)
    return file.getvalue()


def draw_ssg_vqa(frames: int, size: tuple[int, int], folder: Path) -> None:
    """45 videos of so many frames."""
    source, noise = random.Random(0), np.random.default_rng(0)
    tools, organs = "grasper hook bipolar clipper scissors irrigator".split(), "gallbladder liver omentum gut".split()
    forms = [
        ("what is the {tool} doing at the {organ}?", "retract", "one_hop.json|query_component|NA"),
        ("is there any {tool} in the frame?", "True", "zero_hop.json|exist|NA"),
        ("how many {tool} are there?", "1", "zero_hop.json|count|NA"),
        ("what color is the {tool} near the {organ}?", "silver", "one_hop.json|query_color|relate_spatial"),
        ("what tool is at the {organ}?", "{tool}", "single_and.json|query_type|NA"),
    ]
    splits = yaml.safe_load(VIDEOS.read_text())
    for video in (video for videos in splits.values() for video in videos):
        questions, shown = folder / "ssg-qa" / video, folder / "data" / video
        questions.mkdir(parents=True)
        shown.mkdir(parents=True)
        for frame in range(frames):
            lines = ["Which anatomical structures are present?|liver", "Which tools are present?|hook"]
            for _ in range(QUESTIONS):
                words = {"tool": source.choice(tools), "organ": source.choice(organs)}
                lines.append("|".join(source.choice(forms)).format(**words))
            (questions / f"{frame}.txt").write_text("\n".join(lines) + "\n")
            (shown / f"{frame:06d}.png").write_bytes(picture(noise, size, "PNG"))


def draw_kvasir_vqa(rows: int, size: tuple[int, int], folder: Path) -> None:
    """One file of Parquet with the bytes of its picture in each row."""
    source, noise = random.Random(0), np.random.default_rng(0)
    forms = {
        "Is there text?": ["yes", "no"],
        "How many polyps are in the image?": ["0", "1", "2"],
        "What color is the abnormality? If more than one separate with ;": ["pink", "red", "pink; red"],
        "What is the size of the polyp?": ["<5mm", "5-10mm", "11-20mm"],
        "Where in the image is the abnormality?": ["center", "center; lower-left", "upper-right"],
        "What type of procedure is the image taken from?": ["colonoscopy", "gastroscopy"],
        "Have all polyps been removed?": ["yes", "no", "not relevant"],
        "Is this finding easy to detect?": ["yes", "no"],
        "How many findings are present?": ["0", "1"],
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = ("source", "question", "answer", "img_id")
    features = {"image": {"_type": "Image"}, **{name: {"dtype": "string", "_type": "Value"} for name in texts}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), *((name, pa.string()) for name in texts)], metadata=about)
    (folder / "data").mkdir(parents=True)
    with parquet.ParquetWriter(folder / "data" / "raw-00000-of-00001.parquet", schema) as file:
        for number in range(-(-rows // len(forms))):
            shown = {"bytes": picture(noise, size, "JPEG"), "path": None}
            asked = list(forms.items())[: rows - number * len(forms)]
            texts_of = [("drawn", question, source.choice(answers), f"{number:05d}") for question, answers in asked]
            columns = [[shown] * len(asked), *zip(*texts_of, strict=True)]
            arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
            file.write_table(pa.table(arrays, schema))
