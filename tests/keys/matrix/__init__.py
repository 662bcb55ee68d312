"""Every way in which code holds code or state, changed in every place where code stands."""
