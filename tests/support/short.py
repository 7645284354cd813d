"""What a test leaves out of a recipe's run that it does not look at."""

from contextlib import contextmanager
from unittest import mock


@contextmanager
def without_preflight():
    """No preflight before a training, in this process and those that it forks."""
    inspect = "vlm_recipes.callbacks.preflight.callback.PreflightCallback.on_train_begin"
    with mock.patch(inspect, lambda *event, **more: None):
        yield
