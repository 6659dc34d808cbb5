"""The ``train`` section with its defaults, see kddetr/engine/config/defaults.py."""

from kddetr.engine import train_defaults

train = train_defaults()
