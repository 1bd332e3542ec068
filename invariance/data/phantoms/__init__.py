"""Drawn slices of chest and abdomen."""
