"""Observers of images and layers: how well two known alternatives are told apart."""
