"""One thread for all tests: sums depend on how many share the work, and some tests compare bits."""

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)
