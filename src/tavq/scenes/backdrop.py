"""The image behind the things."""

import numpy as np

from tavq.scenes.outdoors import paint_outdoors
from tavq.scenes.plan import Canvas, Plan
from tavq.scenes.rooms import paint_room
from tavq.scenes.world import Scene


def paint_backdrop(scene: Scene, classes: Plan) -> Canvas:
    """The image without its things, in values from 0 to 255."""
    n = len(classes)
    canvas = np.empty((n, n, 3), np.float32)
    if scene.place.indoor:
        paint_room(scene, classes, canvas)
    else:
        paint_outdoors(scene, classes, canvas)
    return canvas
