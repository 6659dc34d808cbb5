"""Detectron2's own detectors, wrapped so that they answer queries."""
