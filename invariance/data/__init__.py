"""CT images: reading, writing, simulating, sampling and measuring them, always in HU."""

from .ldct import LDCTData, find_ldct
from .pairs import Pairs, body_mask, split_patients
from .patches import PatchSampler
from .phantom import Phantom, phantom
from .projection import ParallelBeam, parallel_beam
from .read import Series, default_slice, find_series, inspect, read
from .simulate import dose_pair, noise_realisations, simulate_low_dose
from .slices import OUTSIDE_HU, CTSlice
from .sources import fitting_set

__all__ = [
    "OUTSIDE_HU",
    "CTSlice",
    "LDCTData",
    "Pairs",
    "ParallelBeam",
    "PatchSampler",
    "Phantom",
    "Series",
    "body_mask",
    "default_slice",
    "dose_pair",
    "find_ldct",
    "find_series",
    "fitting_set",
    "inspect",
    "noise_realisations",
    "parallel_beam",
    "phantom",
    "read",
    "simulate_low_dose",
    "split_patients",
]
