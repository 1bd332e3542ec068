"""Moving samples until the layer no longer sees them."""
