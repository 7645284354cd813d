"""What comes along with a collator, for somebody with a Trainer of their own."""

import os
import subprocess
import sys

UNWANTED = "datasets deepspeed evaluate imagehash matplotlib peft pycocotools sklearn trl"
ROOMS = "callbacks eval models training recipes demo"
CODE = """
import sys
def unwanted():
    names = {name.removeprefix("vlm_recipes.").split(".")[0] for name in sys.modules}
    return sorted(names & set(sys.argv[1].split()))
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator, SharedImageCollator
print(unwanted())
from vlm_recipes.collators import SegmentationCollator
print(unwanted())
"""


def test_collators_bring_no_library_that_they_do_not_use_and_no_other_room_but_rows(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", CODE, f"{UNWANTED} {ROOMS}"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    plain, with_masks = ran.stdout.splitlines()
    assert plain == "[]"
    assert with_masks == "['pycocotools']"  # masks are run-length encoded: the search finds what does come along
