"""Store metadata in a text file."""
