"""A composed configuration, or one that a run has kept, onto the schema. No torch here, and no Hydra."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from fieldtune.config import SECTIONS, Config
from fieldtune.errors import ConfigError
from fieldtune.keys import unknown_key, unknown_keys
from fieldtune.tasks import data_schema


def load(composed: Any) -> Config:
    """The composed configuration as a `Config`; a key outside the schema or a missing value is a `ConfigError`.

    `composed` is what Hydra composed, or the mapping read from a run's config.yaml (then Hydra is not needed).
    """
    if not OmegaConf.is_config(composed) or OmegaConf.get_type(composed) is not Config:
        task = (composed.get("data") or {}).get("task")
        schema = OmegaConf.structured(Config)
        schema.data = OmegaConf.structured(data_schema(task))
        for name, section in SECTIONS.items():
            schema[name] = OmegaConf.structured(section)
        composed = OmegaConf.merge(schema, composed)
    unknown = unknown_keys(composed, composed.data.task)
    if unknown:
        raise ConfigError([unknown_key(key) for key in unknown])
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError([f"{key} is not set: give {key}=..." for key in missing])
    config = OmegaConf.to_object(composed)
    if not isinstance(config, Config):
        raise ConfigError([f"the configuration is a {type(config).__name__}, not a mapping of sections"])
    return config
