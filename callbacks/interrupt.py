"""SIGTERM and Ctrl-C end a training after its step, with a checkpoint."""

import os
import signal
import sys
import threading
from functools import cache

import transformers

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal ended the training, which has saved a checkpoint; the exit status is the shell's, 128 + signal."""


class InterruptCallback(transformers.TrainerCallback):
    """On SIGTERM or Ctrl-C finish the step, save a checkpoint and raise `Interrupted`, on all processes together.

    A second Ctrl-C stops at once. The best checkpoint is not loaded, and nothing is deleted for it: with
    `should_training_stop`, the Trainer would end by deleting the checkpoint just saved if `save_total_limit` is 1,
    and so does its own `enable_jit_checkpoint`, which also leaves out the step that it stops in.

    Workers of data loaders that are forked meanwhile obey only this process, for a signal often reaches the whole
    process group or job step, and without its workers a training cannot finish the step. A signal that comes during
    an evaluation is obeyed after it. Processes agree after each step, which costs them one small reduction.
    Add it before `ResumeCallback` and after the others.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer
        self.received: int | None = None  # the first signal that came
        self.agreed = False  # all processes stop after this step
        self.handlers: dict[int, object] = {}  # whose the signals were

    def on_train_begin(self, args, state, control, **kwargs):
        self.received, self.agreed = None, False
        self.listen()

    def listen(self) -> None:
        """Take the signals from whoever has them; only a main thread may, in others this does nothing."""
        if threading.current_thread() is threading.main_thread() and not self.handlers:
            self.process = os.getpid()
            self.handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
            _listening.add(self)
            _isolate_children()

    def close(self, *event, **kwargs) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}
        _listening.discard(self)

    on_train_end = close

    def _receive(self, number: int, frame) -> None:
        if os.getpid() != self.process:
            return  # a child in the moment after it was forked
        if number == signal.SIGINT == self.received:
            _say("stopped at once: a checkpoint that was being written is broken")
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self.received is None:
            self.received = number
            if self.trainer.is_local_process_zero():
                once_more = "; Ctrl-C once more stops at once" if number == signal.SIGINT else ""
                _say(f"{signal.Signals(number).name}: finishing this step, then saving a checkpoint{once_more}")

    def on_step_end(self, args, state, control, **kwargs):
        accelerator = self.trainer.accelerator
        if self.received and accelerator.num_processes > 1:
            accelerator.set_trigger()
        stop = accelerator.check_trigger() if accelerator.num_processes > 1 else self.received is not None
        self.agreed = self.agreed or stop
        control.should_save = control.should_save or self.agreed

    on_epoch_end = on_step_end

    def on_save(self, args, state, control, **kwargs):
        if self.agreed:
            self.trainer.accelerator.wait_for_everyone()  # a launcher kills the others when the first one ends
            self.close()
            folder = f"{args.output_dir}/checkpoint-{state.global_step}"
            self.leave(f"interrupted after step {state.global_step}, saved {folder}: --resume_from_checkpoint true")

    def leave(self, line: str) -> None:
        """Say why, and raise `Interrupted`."""
        if self.trainer.is_world_process_zero():
            _say(line)
        raise Interrupted(128 + (self.received or signal.SIGTERM))


def _say(line: str) -> None:
    """Print a line also from within a signal handler, where `print` may be in the middle of another."""
    os.write(sys.__stderr__.fileno(), f"{line}\n".encode())


_listening: set[InterruptCallback] = set()


@cache
def _isolate_children() -> None:
    """Registered once a process, for that cannot be undone; it does nothing while nobody listens."""
    os.register_at_fork(after_in_child=_obey_parent_only)


def _obey_parent_only() -> None:
    """In a child just forked: of these signals, only the parent's own SIGTERM ends it."""
    if _listening and hasattr(signal, "sigwaitinfo"):  # macOS has none, and forks no workers
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)
