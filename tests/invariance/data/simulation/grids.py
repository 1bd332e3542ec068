"""Coordinates of pixels."""

import numpy as np


def grid(shape, spacing=(1.0, 1.0)):
    rows = (np.arange(shape[0]) - shape[0] // 2) * spacing[0]
    columns = (np.arange(shape[1]) - shape[1] // 2) * spacing[1]
    return rows[:, None], columns[None, :]
