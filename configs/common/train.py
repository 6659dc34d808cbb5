"""The `train` section with its defaults; a config overrides what differs."""

from kddetr.engine import train_defaults

train = train_defaults()
