"""Cases whose answer is known, for the whole way from fit to audit."""
