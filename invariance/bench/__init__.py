"""How fast samples are drawn, beside the published loop, other libraries and what the machine can do."""
