"""The page for a browser: what a cache holds, what it saved, and why calls missed. Without JavaScript."""
