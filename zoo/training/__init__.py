"""Training recipes of the zoo's denoisers: data, losses, the resumable loop and the scores."""

from .loop import train
from .losses import critic_loss
from .pairs import Pair, TrainingSet
from .perceptual import FilterBankFeatures, Vgg19Features
from .recipes import RECIPES, Recipe
from .scores import BANDS, Scores, score
from .sources import DOSES, load_pairs

__all__ = [
    "BANDS",
    "DOSES",
    "RECIPES",
    "FilterBankFeatures",
    "Pair",
    "Recipe",
    "Scores",
    "TrainingSet",
    "Vgg19Features",
    "critic_loss",
    "load_pairs",
    "score",
    "train",
]
