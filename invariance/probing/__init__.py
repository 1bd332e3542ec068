"""Whether a layer can tell a lesion."""
