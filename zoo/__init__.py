"""The zoo: reference CT denoisers with trained weights, ready to use in Hounsfield units."""

from .exporting import export
from .registry import card, load, metadata, names, network

__all__ = ["card", "export", "load", "metadata", "names", "network"]
