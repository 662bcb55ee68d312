"""A page for a browser: a cache's contents, what it saved, and why calls missed. Without JavaScript."""
