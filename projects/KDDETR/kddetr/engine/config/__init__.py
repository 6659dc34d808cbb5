"""Config files: loading, overriding, checking, and building what they describe."""

from .defaults import train_defaults
from .load import build, load_config, require_sections
from .overrides import apply_overrides

__all__ = ["apply_overrides", "build", "load_config", "require_sections", "train_defaults"]
