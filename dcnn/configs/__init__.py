"""Configurations: the tables of settings, their checks, and the plans that they build."""

from dcnn.configs.arms import arm_name, arm_settings, effective, tables, with_overrides
from dcnn.configs.glossary import glossary, settings_that_matter
from dcnn.configs.settings import ConfigDict, Setting, flat, to_dict
from dcnn.configs.tasks import SETTINGS, default, section_of
from dcnn.configs.validation import seeds, tuning_seeds, validate

__all__ = [
    "SETTINGS", "ConfigDict", "Setting", "arm_name", "arm_settings", "default", "effective", "flat",
    "glossary", "section_of", "seeds", "settings_that_matter", "tables", "to_dict", "tuning_seeds",
    "validate", "with_overrides"]
