"""A census of installed Python code: parse and measure each file once, and draw the result."""
