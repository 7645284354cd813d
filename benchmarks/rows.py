"""How long a recipe takes to its first step at a dataset's real size: `python -m benchmarks.rows [PART …]`.

The datasets are drawn once, into the system's folder for temporary files. Each recipe is launched with a small
untrained model until its first step is logged: a first time, again, and as two processes that train together. Beside
the seconds stands the anonymous memory of the largest process: what of its rows does not lie on disk.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.full_size_rows import draw_kvasir_vqa, draw_ssg_vqa
from demo.worlds.small import build

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(tempfile.gettempdir(), "vlm_recipes_rows")
# part -> recipe, how it is drawn, frames of each of 45 videos (or rows), width and height
PARTS = {
    "SSG-VQA": ("ssg_vqa", draw_ssg_vqa, 556, (96, 54)),
    "SSG-VQA, a fifth, real frames": ("ssg_vqa", draw_ssg_vqa, 111, (854, 480)),
    "Kvasir-VQA": ("kvasir_vqa", draw_kvasir_vqa, 58_849, (720, 576)),
}
SETTINGS = {
    "ssg_vqa": ["--dtype", "float32"],
    "kvasir_vqa": "--dtype float32 --min_pixels 12544 --max_pixels 12544 --gradient_checkpointing false".split(),
}
COMMON = "--max_steps 2 --logging_steps 1 --warmup_steps 0 --gradient_accumulation_steps 1 --eval_strategy no".split()
COMMON += "--load_best_model_at_end false --do_predict false --dataloader_num_workers 0".split()
COMMON += "--use_cpu true --overwrite_output_dir true".split()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
ENVIRONMENT |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(FOLDER / "cache")}
LOGGED = ": loss "  # a line of `LogLinesCallback`


def drawn(place: Path, draw: Callable[[Path], object]) -> Path:
    """A folder that is drawn where it is not there yet, wholly or not at all."""
    if not place.is_dir():
        scratch = place.with_name(f"{place.name} unfinished")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        draw(scratch)
        scratch.rename(place)
    return place


def anonymous_memory(session: int) -> Iterator[float]:
    """GiB of what each process of this session holds that is no file's."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
            if os.getsid(int(process.name)) == session:
                status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                yield int(status.get("RssAnon", "0 kB").split()[0]) / 2**20


def first_step(command: list[str | Path]) -> tuple[float, float]:
    """Seconds until a run has logged its first step, and the most anonymous memory of one of its processes in GiB."""
    begin, most, lines, done = time.perf_counter(), [0.0], [], threading.Event()
    run = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def watch() -> None:
        while not done.wait(0.2):
            most.append(max(anonymous_memory(run.pid), default=0))

    watching = threading.Thread(target=watch)
    watching.start()
    for line in run.stdout:
        lines.append(line)
        if LOGGED in line:
            break
    seconds = time.perf_counter() - begin
    done.set()
    watching.join()
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    if LOGGED not in lines[-1]:
        sys.exit("".join(lines[-40:]))
    return seconds, max(most)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--share", type=float, default=1.0, help="draw this share of the frames or rows")
    args = parser.parse_args(arguments)
    shutil.rmtree(FOLDER / "cache", ignore_errors=True)
    print("| dataset | first start | next start | each of two processes | anonymous memory, most |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for part in args.parts or PARTS:
        recipe, draw, count, size = PARTS[part]
        count = round(count * args.share)
        dataset = drawn(FOLDER / f"{recipe} {count} {size[0]}x{size[1]}", partial(draw, count, size))
        model = drawn(FOLDER / f"{recipe} model", partial(build, recipe)) / "model"
        launch = [f"recipes/{recipe}.py", "--dataset_name", dataset, "--model_name_or_path", model]
        launch += ["--output_dir", FOLDER / "output", *SETTINGS[recipe], *COMMON]
        one = ["accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml", *launch]
        two = ["torch.distributed.run", "--nproc_per_node", "2", *launch, "--ddp_backend", "gloo"]
        found = [first_step(command) for command in (one, one, two)]
        seconds = " | ".join(f"{second:.0f} s" for second, _ in found)
        print(f"| {part} | {seconds} | {max(memory for _, memory in found):.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
