"""CT images: reading, writing, simulating, sampling and measuring them, always in HU."""

from .ldct import LDCTData, find_ldct
from .metrics import WINDOWS, NoisePower, Quality, noise_power, quality
from .overview import overview_html
from .pairs import Pairs, body_mask, split_patients
from .patches import PatchSampler
from .phantom import Phantom, phantom
from .projection import ParallelBeam, parallel_beam
from .read import Series, default_slice, find_series, inspect, read
from .simulate import dose_pair, noise_realisations, simulate_low_dose
from .slices import OUTSIDE_HU, CTSlice
from .sources import fitting_set
from .write import new_series_uid, write_dicom

__all__ = [
    "OUTSIDE_HU",
    "WINDOWS",
    "CTSlice",
    "LDCTData",
    "NoisePower",
    "Pairs",
    "ParallelBeam",
    "PatchSampler",
    "Phantom",
    "Quality",
    "Series",
    "body_mask",
    "default_slice",
    "dose_pair",
    "find_ldct",
    "find_series",
    "fitting_set",
    "inspect",
    "new_series_uid",
    "noise_power",
    "noise_realisations",
    "overview_html",
    "parallel_beam",
    "phantom",
    "quality",
    "read",
    "simulate_low_dose",
    "split_patients",
    "write_dicom",
]
