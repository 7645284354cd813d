"""What scoring a closed set in one forward saves: `python -m benchmarks.label_scores`.

Batches of 32 drawn questions for the demo's SurgViVQA, untrained (time does not depend on the weights), each against
SSG-VQA's 51 labels: one forward of video, question and label for each label, and the labels as a tree in one. Both
run in turns in this process; the ratio of one run counts, not the seconds. The scores are compared, too.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from trl import ModelConfig

from demo.checkpoints.surgvivqa import write_surgvivqa
from demo.worlds.laparoscopy.dataset import draw_laparoscopy
from recipes.ssg_vqa import LABELS, prompt
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.generation.label_tree import LabelTree
from vlm_recipes.models.surgvivqa.loading import load_surgvivqa
from vlm_recipes.rows.formats.ssg_vqa import load_question_folder, read_line

BATCH, ROUNDS = 32, 5


def drawn_rows(folder: Path) -> list[dict]:
    """Questions on as many frames, the first of a shuffle."""
    draw_laparoscopy(folder, {"VID01": 100})
    raw = load_question_folder(folder / "ssg-qa", folder / "data", ["VID01"]).shuffle(seed=0).select(range(BATCH))
    asked = [read_line(row["line"]) for row in raw]
    return [
        {"id": row["id"], "image_id": row["id"], "image": row["image"]["path"], "prompt": prompt(query["question"])}
        for row, query in zip(raw, asked, strict=True)
    ]


@torch.no_grad()
def one_by_one(network, batch: dict, labels: LabelTree) -> torch.Tensor:
    """Mean log-probability per token `[B, L]` by a forward for each label, as the loss would see it."""
    scores = []
    for label in labels.labels:
        ids = torch.tensor([*label, labels.end]).expand(len(batch["input_ids"]), -1)
        logits = network(**batch, labels=ids).logits.float().log_softmax(-1)
        scores.append(logits.gather(-1, ids[..., None])[..., 0].mean(1))
    return torch.stack(scores, dim=1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = drawn_rows(Path(folder, "operations"))
        write_surgvivqa(Path(folder, "model"), [row["prompt"] for row in rows], [f" {label}" for label in LABELS] * 20)
        network, processor = load_surgvivqa(ModelConfig(str(Path(folder, "model")), dtype="float32"))
        network.eval()
        collator = VideoCollator(processor, network.config.video.num_frames, prompt_only=True)
        labels = LabelTree([collator.answer_ids(label) for label in LABELS], processor.tokenizer.eos_token_id)
        batch = dict(collator(rows))
    naive, tree, ratios, furthest = [], [], [], 0.0
    for turn in range(ROUNDS + 1):
        start = time.perf_counter()
        expected = one_by_one(network, batch, labels)
        between = time.perf_counter()
        scores = network.score_labels(labels, **batch)
        end = time.perf_counter()
        furthest = max(furthest, (scores - expected).abs().max().item())
        if turn:  # the first one warms up
            naive.append(between - start)
            tree.append(end - between)
            ratios.append(naive[-1] / tree[-1])
    print(f"{BATCH} questions, {len(LABELS)} labels, median of {ROUNDS} rounds, {torch.get_num_threads()} threads")
    print(f"one by one {statistics.median(naive):.2f} s, as a tree {statistics.median(tree):.3f} s")
    print(f"one by one / tree: {statistics.median(ratios):.1f} (from {min(ratios):.1f} to {max(ratios):.1f})")
    print(f"largest difference between their scores: {furthest:.1e}")


if __name__ == "__main__":
    main()
