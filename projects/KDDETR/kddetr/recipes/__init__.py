"""Recipes: from a teacher's file and a folder of images to a config that trains.

``tools/distill.py`` and ``tools/train.py`` are thin programs around this package.
"""
