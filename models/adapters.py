"""What an adapter is, which base it belongs to, and whether that is still the one that was loaded."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from peft import PeftConfig

MERGED_BASE = "merged_base"  # beside an adapter: the base that it was trained on, where nobody else has that
# What says where an adapter came from, or how it was made, and not what it computes.
OF_NO_KIND = {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"}
OF_NO_KIND |= {"init_lora_weights", "fan_in_fan_out", "lora_dropout"}


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The base of the adapter in `folder`, and its revision on the Hub.

    A merged base is looked for beside the adapter, or in the folder of the run whose checkpoint it is: it has moved
    along with them, and the path in `adapter_config.json` has not.
    """
    config = PeftConfig.from_pretrained(folder)
    name = config.base_model_name_or_path
    places = (Path(folder), Path(folder).absolute().parent) if name and Path(name).name == MERGED_BASE else ()
    beside = [str(place / MERGED_BASE) for place in places if (place / MERGED_BASE / "config.json").is_file()]
    return (beside or [name])[0], config.revision


def other_kind(made: PeftConfig, wanted: PeftConfig) -> str:
    """How an adapter that was `made` differs from one that is `wanted`, as "r 8 and not 16"; empty if it does not."""
    one, other = ({k: v for k, v in config.to_dict().items() if k not in OF_NO_KIND} for config in (made, wanted))
    differ = [name for name in one | other if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {_short(one.get(name))} and not {_short(other.get(name))}" for name in differ)


def _short(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def files_of(name: str, revision: str | None = None) -> dict[str, tuple[int, int]] | str | None:
    """What tells, without reading it, whether a model is still the same: of a folder, its weights' and its
    configurations' sizes in bytes and times in nanoseconds; of a model of the Hub, its commit; None where unknown.
    """
    if Path(name).is_dir():
        files = [file for kind in ("*.safetensors", "*config.json") for file in Path(name).glob(kind)]
        return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)}
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
