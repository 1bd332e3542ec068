"""Drawing invariances: inverse flow, decoder, tiles."""
