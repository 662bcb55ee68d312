"""Other projects' own tests, run with a cache: what they expect of Dask holds with results that were loaded, too."""
