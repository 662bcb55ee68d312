"""A function for the command line to explain."""


def double(x):
    return 2 * x
