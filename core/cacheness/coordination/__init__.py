"""Coordinate processes that share a store: sessions, compute leases, ownership of blobs."""
