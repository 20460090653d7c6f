"""The colors of evidence over gray, computed pixel by pixel in float64: an independent replica."""

from __future__ import annotations

from functools import cache

import matplotlib
import numpy as np

# Ottosson 2020: linear sRGB to cones, cones to OKLab.
CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def to_lab(color):
    color = np.asarray(color, float)
    linear = np.where(color > 0.04045, ((color + 0.055) / 1.055) ** 2.4, color / 12.92)
    return LAB @ np.cbrt(CONES @ linear)


def to_rgb(lab):
    linear = np.linalg.solve(CONES, np.linalg.solve(LAB, lab) ** 3)
    return np.where(linear > 0.0031308, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055, 12.92 * linear)


@cache
def compute_offset(level, colormap, strength):
    """What one level of evidence, 0 to 255, adds to gray in OKLab."""
    first, color = (to_lab(matplotlib.colormaps[colormap](i / 255)[:3]) for i in (0, level))
    rise = color[0] - first[0]
    lightness = np.clip(strength * rise * (0.5 if rise > 0 else 0.25), 0.1 - 0.37, 0.98 - 0.59)
    chroma = strength * 1.2 * level / 255 * color[1:]

    def shows(part):
        shown = [to_rgb(np.array([ground + lightness, *(part * chroma)])) for ground in np.linspace(0.37, 0.59, 5)]
        return all(((rgb > -0.003) & (rgb < 1.003)).all() for rgb in shown)

    part = next((part for part in np.linspace(1, 0, 257) if shows(part)), 0.0)
    return np.array([lightness, *(part * chroma)])


def blend(gray, level, colormap, strength=0.8):
    """The color of one level of evidence, 0 to 255, over one gray from 0 to 1: three numbers from 0 to 255."""
    ground = np.array([0.37 + 0.22 * to_lab([gray] * 3)[0], 0, 0])
    return 255 * np.clip(to_rgb(ground + compute_offset(level, colormap, strength)), 0, 1)
