"""What models joined of several checkpoints share: an adapter's folder has to say what it belongs to."""

from pathlib import Path

from transformers import PreTrainedConfig, Trainer


class ComposedTrainer(Trainer):
    """A Trainer that saves the configuration, too, where it saves an adapter; an evaluation's batches stand alone."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:  # or it would be divided by the tokens of all processes: another mean than in one
            num_items_in_batch = None
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        self.accelerator.unwrap_model(self.model).config.save_pretrained(output_dir or self.args.output_dir)


def config_of_adapter(config_class: type[PreTrainedConfig], name: str) -> PreTrainedConfig:
    """The configuration that a `ComposedTrainer` saved in the folder `name`; OSError without one.

    transformers alone would go on to that of the adapter's base.
    """
    if not Path(name, "config.json").is_file():
        raise OSError("it holds no config.json that says what its adapter belongs to")
    return config_class.from_pretrained(name)
