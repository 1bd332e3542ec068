"""CT images: reading, writing, simulating, sampling and measuring them, always in HU."""

from .phantom import Phantom, phantom
from .projection import ParallelBeam, parallel_beam
from .read import Series, default_slice, find_series, inspect, read
from .simulate import noise_realisations, simulate_low_dose
from .slices import OUTSIDE_HU, CTSlice

__all__ = [
    "OUTSIDE_HU",
    "CTSlice",
    "ParallelBeam",
    "Phantom",
    "Series",
    "default_slice",
    "find_series",
    "inspect",
    "noise_realisations",
    "parallel_beam",
    "phantom",
    "read",
    "simulate_low_dose",
]
