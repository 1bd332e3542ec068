"""CT images: reading, writing, simulating, sampling and measuring them, always in HU."""

from .io.describe import inspect
from .io.read import Reading, Series, default_slice, find_series, load, read
from .io.slices import OUTSIDE_HU, CTSlice
from .io.write import new_series_uid, write_dicom
from .ldct import LDCTData
from .metrics import NoisePower, Quality, noise_power, quality
from .overview import overview_html
from .pairs import Pairs, body_mask, split_patients
from .patches import PatchSampler
from .phantoms.phantom import Phantom, phantom
from .scans import find_ldct, find_scans
from .simulation.dose import dose_pair, noise_realisations, simulate_low_dose
from .simulation.projection import ParallelBeam, parallel_beam
from .sources import fitting_set
from .windows import WINDOWS

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
    "Reading",
    "Series",
    "body_mask",
    "default_slice",
    "dose_pair",
    "find_ldct",
    "find_scans",
    "find_series",
    "fitting_set",
    "inspect",
    "load",
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
