"""What becomes of one result: encoded, signed, published, looked up, counted, deleted."""
