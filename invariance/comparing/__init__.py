"""Several analyses set against each other: what each layer hides, and what one shows that another hides."""
