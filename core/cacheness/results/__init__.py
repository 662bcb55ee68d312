"""Handle results: encode, sign, publish, look up, count, delete."""
