"""The embedded data set: synthetic images with true text, from one scene graph, at any resolution."""

from tavq.scenes.kinds import CLASSES, KINDS
from tavq.scenes.rendering import Rendering, render
from tavq.scenes.world import LABELS, Scene, Thing, label_vector, labels, sample_scene
from tavq.scenes.writer import describe, write_scenes

__all__ = [
    "CLASSES",
    "KINDS",
    "LABELS",
    "Rendering",
    "Scene",
    "Thing",
    "describe",
    "label_vector",
    "labels",
    "render",
    "sample_scene",
    "write_scenes",
]
