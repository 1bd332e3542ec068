"""Long trials: commands that are killed, many slices, wrong input, a cache that many share."""
