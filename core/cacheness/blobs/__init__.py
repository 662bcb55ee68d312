"""Where the bytes of results are kept."""
