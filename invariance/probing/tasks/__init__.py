"""Tasks: two alternatives that an observer must tell apart, and how they are put into an image."""
