"""Where the rows are kept that make results visible."""
