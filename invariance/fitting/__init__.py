"""Fitting autoencoder and flow, and testing the fit."""
