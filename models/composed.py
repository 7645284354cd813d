"""What models joined of several checkpoints share: an adapter's folder has to say what it belongs to."""

from pathlib import Path

from transformers import PreTrainedConfig


def config_of_adapter(config_class: type[PreTrainedConfig], name: str) -> PreTrainedConfig:
    """The configuration that a `ComposedTrainer` saved in the folder `name`; OSError without one.

    transformers alone would go on to that of the adapter's base.
    """
    if not Path(name, "config.json").is_file():
        raise OSError("it holds no config.json that says what its adapter belongs to")
    return config_class.from_pretrained(name)
