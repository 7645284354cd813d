"""What libraries say in a run that nobody can act on, silenced one by one, each with its reason; all else is shown.

This package imports it before anything else, and a recipe this package: some speak while they are loaded.
"""

import logging
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

LOGGED = {  # logger -> how what it says begins
    # looks for a faster kernel of a package that none of this needs
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
    # how eight bits are computed, said at each layer of each step
    "bitsandbytes.autograd._functions": r"MatMul8bitLt: inputs will be cast from torch\.\w+ to float16",
    # whoever launched on a CPU knows
    "DeepSpeed": "Setting accelerator to CPU",
    # of two checkpoints within a second; then it goes by the numbers in their names, which are right
    "transformers.trainer_utils": "mtime may not be reliable on this filesystem",
    # training reads no cache
    "transformers.utils.generic": "`use_cache=True` is incompatible with gradient checkpointing",
}
WARNED = [
    # the newer name is unknown to the oldest transformers that we take, and to TRL
    (FutureWarning, r"`(is_)?gradient_checkpointing(_kwargs|_enable)?` is deprecated"),
    # ours: the first rows are shown as they are trained, that token in green
    (UserWarning, "the chat template writes nothing behind an answer"),
]


def _not_said(logger: str, pattern: str) -> None:
    logging.getLogger(logger).addFilter(lambda record: not re.match(pattern, record.getMessage()))


for name, beginning in LOGGED.items():
    _not_said(name, beginning)
for category, beginning in () if sys.warnoptions else WARNED:  # who says -W has said what is to be heard
    warnings.filterwarnings("ignore", message=beginning, category=category)


@contextmanager
def shared_weights_are_no_news(network: "nn.Module") -> Iterator[None]:
    """In here the Trainer does not say of a checkpoint that it lacks a weight which it has under another name.

    A tensor that two modules share is saved once. A weight that is nowhere in the file is still named.
    """
    names = defaultdict(set)
    for name, weight in network.named_parameters(remove_duplicate=False):
        names[id(weight)].add(name)
    others = {name: group - {name} for group in names.values() for name in group}

    def tell(record: logging.LogRecord) -> bool:
        found = re.match(r"There were missing keys in the checkpoint model loaded: (\[.*\])", record.getMessage())
        missing = set(re.findall("'([^']+)'", found[1])) if found else set()
        return not missing or any(not others.get(name, set()) - missing for name in missing)

    logger = logging.getLogger("transformers.trainer")
    logger.addFilter(tell)
    try:
        yield
    finally:
        logger.removeFilter(tell)


def bars_only_in_a_terminal() -> None:
    """No library draws bars into a file."""
    if not sys.stderr.isatty():
        import datasets
        import huggingface_hub.utils
        import transformers

        datasets.disable_progress_bars()
        huggingface_hub.utils.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
