"""A census of real Python code: every installed distribution parsed, measured and drawn, each file once."""
