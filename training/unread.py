"""Settings of the Trainers that a recipe takes, and that no step would follow: refused, and not passed over."""

from transformers import TrainingArguments
from trl import SFTConfig

from ..models.given import given

# Names of settings -> why they would do nothing; first what holds for all recipes.
UNREAD = {
    "remove_unused_columns": "rows reach the collator whole",
    "predict_with_generate|generation_.*|sortish_sampler": "the recipe's own evaluation asks for answers",
}
OF_CHATS = {
    "chat_template_path|eos_token": "the collator follows the model's own: change it in the model's folder",
    "(completion|assistant)_only_loss": "the collator trains on the assistant's answers alone",
    "dataset_text_field|shuffle_dataset|eval_packing|pad_to_multiple_of": "SFTTrainer is not to prepare rows",
}
OF_OTHERS = {"label_smoothing_factor": "the recipe's Trainer takes the model's own loss"}


def refuse_unread(training: TrainingArguments) -> None:
    """Raise `ValueError`, in one line, for a setting that has no effect, or that another one overrules."""
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if (value := getattr(training, name)) < 1:
            raise ValueError(f"--{name} {value}: it has to be 1 or more")
    if getattr(training, "train_sampling_strategy", "random") == "group_by_length":
        raise ValueError("--train_sampling_strategy group_by_length: rows have no length before they are collated")
    unread = UNREAD | (OF_CHATS if isinstance(training, SFTConfig) else OF_OTHERS)
    if training.eval_strategy != "steps":
        unread["eval_steps"] = f"--eval_strategy {training.eval_strategy} evaluates otherwise; steps is another one"
    longest = type(training).max_steps
    if 0 < longest == training.max_steps:
        unread["num_train_epochs"] = f"--max_steps {longest} is the recipe's length; with --max_steps -1 it counts"
    if not training.dataloader_num_workers:
        unread["dataloader_(persistent_workers|prefetch_factor)"] = "there are no workers, --dataloader_num_workers 0"
    if training.resume_from_checkpoint:
        unread["save_only_model"] = "nothing goes on from a checkpoint without its optimizer"
    for names, why in unread.items():
        if asked := given(training, names):
            raise ValueError(f"{asked} has no effect: {why}")
