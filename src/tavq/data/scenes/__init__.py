"""The embedded data set: drawn pictures with true text, from one scene graph, at any resolution."""

from tavq.data.scenes.draw import Rendering, render
from tavq.data.scenes.kinds import CLASSES, KINDS
from tavq.data.scenes.world import LABELS, Scene, Thing, label_vector, labels, sample_scene
from tavq.data.scenes.writer import describe, write_scenes

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
