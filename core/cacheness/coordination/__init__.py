"""Several processes and one store: who writes, who computes, and whose blobs these are."""
