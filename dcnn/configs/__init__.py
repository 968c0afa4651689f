"""Configurations: the settings, their checks, and what they build."""

from dcnn.configs.settings import (
    ConfigDict,
    arm_name,
    arm_settings,
    default,
    effective,
    flat,
    seeds,
    tables,
    to_dict,
    tuning_seeds,
    validate,
    with_overrides,
)

__all__ = [
    "ConfigDict", "arm_name", "arm_settings", "default", "effective", "flat", "seeds", "tables",
    "to_dict", "tuning_seeds", "validate", "with_overrides"]
