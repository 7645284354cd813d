"""SIGTERM and Ctrl-C end a training after its step, with a checkpoint, and what answers after its batch."""

import os
import signal
import sys
import threading
from functools import cache

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import reduce

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal ended what has kept all that it did; the exit status is the shell's, 128 + signal."""


class Signals:
    """Takes SIGTERM and Ctrl-C from `listen` to `close`; the first is `received`, a second Ctrl-C stops at once.

    Workers of data loaders that are forked meanwhile obey only this process, for a signal often reaches the whole
    process group or job step, and without its workers no process can finish what it does.

    Args:
        finishing: what is done before the process ends, said when the first signal comes.
        lost: what is lost where it stops at once.
    """

    def __init__(self, finishing: str, lost: str):
        self.finishing, self.lost = finishing, lost
        self.received: int | None = None  # the first signal that came
        self.handlers: dict[int, object] = {}  # whose the signals were

    def listen(self) -> None:
        """Take the signals from whoever has them; only a main thread may, in others this does nothing."""
        if threading.current_thread() is threading.main_thread() and not self.handlers:
            self.process = os.getpid()
            self.handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}
            _listening.add(self)
            _isolate_children()

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}
        _listening.discard(self)

    def received_by_any(self) -> bool:
        """Whether any process received one: the same on all, which have to ask together (one small reduction)."""
        state, received = PartialState(), self.received is not None
        if state.num_processes == 1:
            return received
        return reduce(torch.tensor(float(received), device=state.device)).item() > 0

    def leave(self, line: str) -> None:
        """Say why, and raise `Interrupted`, on all processes: a launcher kills the others when the first one ends."""
        PartialState().wait_for_everyone()
        self.close()
        if PartialState().is_main_process:
            _say(line)
        raise Interrupted(128 + (self.received or signal.SIGTERM))

    def _receive(self, number: int, frame) -> None:
        if os.getpid() != self.process:
            return  # a child in the moment after it was forked
        if number == signal.SIGINT == self.received:
            _say(f"stopped at once: {self.lost}")
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self.received is None:
            self.received = number
            if PartialState().is_local_main_process:
                once_more = "; Ctrl-C once more stops at once" if number == signal.SIGINT else ""
                _say(f"{signal.Signals(number).name}: {self.finishing}{once_more}")


class InterruptCallback(Signals, transformers.TrainerCallback):
    """On SIGTERM or Ctrl-C finish the step, save a checkpoint and raise `Interrupted`, on all processes together.

    A second Ctrl-C stops at once. The best checkpoint is not loaded, and nothing is deleted for it: with
    `should_training_stop`, the Trainer would end by deleting the checkpoint just saved if `save_total_limit` is 1,
    and so does its own `enable_jit_checkpoint`, which also leaves out the step that it stops in.

    A training that ends by an error calls nobody back: after one, `close` gives the signals back.
    A signal that comes during an evaluation is obeyed after it. Processes agree after each step. Add it before
    `ResumeCallback` and after the others.
    """

    def __init__(self):
        lost = "a checkpoint that was being written is broken"
        super().__init__("finishing this step, then saving a checkpoint", lost)
        self.agreed = False  # all processes stop after this step

    def on_train_begin(self, args, state, control, **kwargs):
        self.received, self.agreed = None, False
        self.listen()

    def on_train_end(self, *event, **kwargs):
        self.close()

    def on_step_end(self, args, state, control, **kwargs):
        self.agreed = self.received_by_any() or self.agreed
        control.should_save = control.should_save or self.agreed

    on_epoch_end = on_step_end

    def on_save(self, args, state, control, **kwargs):
        if self.agreed:
            folder = f"{args.output_dir}/checkpoint-{state.global_step}"
            self.leave(f"interrupted after step {state.global_step}, saved {folder}: --resume_from_checkpoint true")


def _say(line: str) -> None:
    """Print a line also from within a signal handler, where `print` may be in the middle of another."""
    os.write(sys.__stderr__.fileno(), f"{line}\n".encode())


_listening: set[Signals] = set()


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
