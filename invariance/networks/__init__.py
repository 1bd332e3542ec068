"""The networks: autoencoder, critic, embedder and flow."""
