"""Paints walls and floors."""

import numpy as np

from tavq.scenes.class_map import ID, Canvas, ClassMap, perspective, pixel_centres
from tavq.scenes.colours import SKIES, TINTS, mix_colours, vary_colour
from tavq.scenes.textures import fractal_noise, noise
from tavq.scenes.world import Scene


def paint_room(scene: Scene, classes: ClassMap, canvas: Canvas) -> None:
    """Fill the image, with values from 0 to 255."""
    n, backdrop = len(classes), scene.backdrop
    low = round(backdrop.horizon * n)
    _paint_wall(scene, canvas[:low], n)
    _paint_floor(scene, canvas[low:], n, low)
    if backdrop.rug:
        _paint_rug(scene, classes, canvas)
    tint = np.array(TINTS[scene.light], np.float32)
    if scene.light == "lamplight":
        glow = np.hypot(pixel_centres(n)[None, :] - 0.5, pixel_centres(n)[:, None] - 0.3)
        canvas *= tint * (1.12 - 0.45 * glow)[..., None]
    if backdrop.window:
        _paint_window(scene, canvas, n)


def _paint_wall(scene: Scene, wall: Canvas, n: int) -> None:
    backdrop = scene.backdrop
    x, y = pixel_centres(n)[None, :], pixel_centres(n)[: len(wall), None]
    base = np.array(mix_colours(vary_colour(backdrop.wall, backdrop.variant), (255.0, 250.0, 240.0), 0.42), np.float32)
    wall[:] = base
    pattern = np.zeros((len(wall), n), np.float32)
    if backdrop.paper == "striped":
        pattern = np.broadcast_to(((x * 12.0) % 1.0 < 0.5).astype(np.float32), pattern.shape)
    elif backdrop.paper == "dotted":
        across, down = x * 14.0, y * 14.0
        shift = 0.5 * (np.floor(down) % 2)
        pattern = ((((across + shift) % 1.0 - 0.5) ** 2 + (down % 1.0 - 0.5) ** 2) < 0.045).astype(np.float32)
    lighter = base + 0.45 * (255.0 - base) if backdrop.wall != "white" else base * 0.86
    wall += pattern[..., None] * (lighter - base)
    wall *= (1.0 + 0.05 * (noise(n, 120, 120, 1)[: len(wall)] - 0.5) + 0.08 * (0.5 - x))[..., None]
    board = y > backdrop.horizon - 0.032
    np.copyto(wall, np.array((240.0, 236.0, 226.0), np.float32), where=(board & (x >= 0))[..., None])
    edge = (np.abs(y - (backdrop.horizon - 0.032)) < 0.004) & (x >= 0)
    np.copyto(wall, np.array((176.0, 168.0, 156.0), np.float32), where=edge[..., None])


def _paint_floor(scene: Scene, floor: Canvas, n: int, low: int) -> None:
    backdrop = scene.backdrop
    u, away = perspective(scene, n, low)
    base = np.array(vary_colour(backdrop.floor, backdrop.variant + 3), np.float32)
    if backdrop.ground == "wooden":
        base = np.array((176.0, 122.0, 74.0), np.float32)
        plank = np.floor(u * 2.2)
        seam = (u * 2.2 - plank < 0.05) | ((away * 0.35 + 0.37 * (plank % 3)) % 1.0 < 0.025)
        light = 1.0 + 0.09 * np.sin(plank * 12.9) - 0.3 * seam + 0.2 * (noise(n, 160, 22, 3)[low:] - 0.5)
    elif backdrop.ground == "tiles":
        odd = (np.floor(u * 0.9) + np.floor(away * 0.9)) % 2
        grout = ((u * 0.9) % 1.0 < 0.04) | ((away * 0.9) % 1.0 < 0.05)
        light = 1.0 - 0.2 * odd - 0.12 * grout + 0.06 * (noise(n, 60, 60, 3)[low:] - 0.5)
    else:
        base = base * 0.8 + 40.0
        light = 1.0 + 0.2 * (noise(n, 160, 120, 3)[low:] - 0.5) + 0.2 * fractal_noise(n, 3)[low:]
    floor[:] = base * light[..., None]
    floor *= (0.86 + 0.2 * np.clip((pixel_centres(n)[low:] - backdrop.horizon) / 0.3, 0, 1))[:, None, None]


def _paint_rug(scene: Scene, classes: ClassMap, canvas: Canvas) -> None:
    n, backdrop = len(classes), scene.backdrop
    middle = (backdrop.horizon + 1.0) / 2 + 0.03
    x, y = pixel_centres(n)[None, :], pixel_centres(n)[:, None]
    radius = np.sqrt(((x - 0.5) / 0.4) ** 2 + ((y - middle) / (0.3 * (1 - backdrop.horizon))) ** 2)
    base = np.array(vary_colour(backdrop.rug, backdrop.variant), np.float32)
    rings = (np.abs(radius - 0.88) < 0.05) | (np.abs(radius - 0.5) < 0.05)
    colour = base * (1.0 + 0.2 * (noise(n, 150, 150, 4) - 0.5))[..., None]
    colour += rings[..., None] * 0.6 * (np.array((250.0, 240.0, 214.0), np.float32) - colour)
    np.copyto(canvas, colour, where=(classes == ID["rug"])[..., None])


def _paint_window(scene: Scene, canvas: Canvas, n: int) -> None:
    x, y = pixel_centres(n)[None, :] - scene.backdrop.window, pixel_centres(n)[:, None]
    outer = (np.abs(x) < 0.13) & (y > 0.09) & (y < 0.38)
    pane = (np.abs(x) < 0.115) & (y > 0.105) & (y < 0.365) & (np.abs(x) > 0.008) & (np.abs(y - 0.235) > 0.008)
    top, bottom = SKIES["clear"] if scene.light == "day" else SKIES["night"]
    lowness = np.clip((y - 0.1) / 0.27, 0, 1)[..., None]
    glass = np.array(top, np.float32) + lowness * (np.array(bottom, np.float32) - np.array(top, np.float32))
    frame = np.array((246.0, 242.0, 232.0), np.float32) * np.array(TINTS[scene.light], np.float32)
    np.copyto(canvas, frame, where=outer[..., None])
    np.copyto(canvas, np.broadcast_to(glass, canvas.shape), where=pane[..., None])
    sill = (np.abs(x) < 0.15) & (np.abs(y - 0.388) < 0.01)
    np.copyto(canvas, frame * np.float32(0.88), where=sill[..., None])
