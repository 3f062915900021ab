"""Paints the background of a scene."""

import numpy as np

from tavq.scenes.class_map import Canvas, ClassMap
from tavq.scenes.outdoors import paint_outdoors
from tavq.scenes.rooms import paint_room
from tavq.scenes.world import Scene


def paint_backdrop(scene: Scene, classes: ClassMap) -> Canvas:
    """The image without its things, with values from 0 to 255."""
    n = len(classes)
    canvas = np.empty((n, n, 3), np.float32)
    if scene.place.indoor:
        paint_room(scene, classes, canvas)
    else:
        paint_outdoors(scene, classes, canvas)
    return canvas
