"""How is ordinary NumPy code differenced fast? It is recorded once; then its tail is replayed."""
