"""What a run may not be launched with: a tracker that is not installed, or a Hub that would take nothing."""

from accelerate import PartialState
from huggingface_hub import HfApi
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ..rows.errors import one_line


def refuse_what_is_not_to_be_had(training: TrainingArguments) -> None:
    """Raise `ValueError`, in one line, for a tracker that cannot be made and a Hub that does not know who asks.

    The Trainer would raise the same after rows and model are read.
    """
    try:
        for tracker in get_reporting_integration_callbacks(training.report_to):
            tracker()  # which looks whether its library is installed
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(f"--report_to {' '.join(training.report_to)}: {one_line(str(error))}") from error
    if training.push_to_hub and PartialState().is_main_process:
        try:
            HfApi().whoami(token=training.hub_token)
        except Exception as error:  # offline, nobody's token, a server's fault: no class has them all
            reason = one_line(" ".join(str(error).split()))
            raise ValueError(
                f"--push_to_hub: the Hub is not to be had ({reason}): `hf auth login` first, or push the folder later"
            ) from error
