"""The ``train`` section with its defaults (kddetr/engine/config/defaults.py), for a config to change."""

from kddetr.engine import train_defaults

train = train_defaults()
