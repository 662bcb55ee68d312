"""A result cache for Python workflows: computed once, read anywhere, verified, or a clean miss."""
