"""Reading and writing slices."""
