"""The parts of tools/benchmark.py: what a training step and a student cost, measured honestly.

``subject`` builds what is measured and ``batches`` what it is measured on. ``steps``, ``shares``,
``operations``, ``memory`` and ``alone`` measure one thing each, and ``report`` prints the figures.
"""
