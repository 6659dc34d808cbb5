"""What `train` in a config may hold, and what each key is when a config does not say.

This is the schema too: a key that is not here is a typing error, and a value keeps its type.
"""

from typing import Any

__all__ = ["OPTIONAL", "SECTIONS", "train_defaults"]

# Top-level names of a config file; dataloader's own keys.
SECTIONS = {
    "model": None,
    "optimizer": None,
    "lr_multiplier": None,
    "dataloader": ("train", "test", "evaluator"),
    "train": None,
}

# Keys of `train` that may be null.
OPTIONAL = {"init_checkpoint", "best_metric", "clip_grad.max_norm", "checkpointer.max_to_keep"}


def train_defaults() -> dict[str, Any]:
    """A fresh copy of the defaults; periods and lengths count iterations."""
    return {
        "output_dir": "output",
        "init_checkpoint": "",  # to start from (a detector or an ImageNet ResNet) or evaluate
        "max_iter": 90000,
        # The batch that lengths, periods and rate are for; where dataloader.train.total_batch_size
        # is another they are scaled to it, see scaling.py. 0: never. The note is written then.
        "batch_scaling": {"reference": 0, "learning_rate": "sqrt", "note": ""},
        "seed": 0,
        "device": "auto",  # cuda where available, else cpu
        "amp": {"enabled": False, "dtype": "bfloat16"},  # or "float16", on CUDA only
        "clip_grad": {"max_norm": 0.1, "norm_type": 2.0},  # of the whole model; null or 0: off
        "ddp": {"find_unused_parameters": False, "fp16_compression": False},
        "checkpointer": {"period": 5000, "max_to_keep": 3},  # null: keep all
        "eval_period": 5000,  # 0: only after the last iteration
        "best_metric": "bbox/AP",  # "": no best checkpoint
        "log_period": 20,
    }
