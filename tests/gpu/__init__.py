"""What only a GPU can show, and that nothing of it is forgotten."""
