"""Many analyses as one run: cases, shards, restarts, and the table of what was found."""
