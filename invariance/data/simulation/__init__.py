"""Dose and noise, simulated in projection space."""
