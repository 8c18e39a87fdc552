"""Speed, memory and accuracy of every processor, beside the libraries that do the same: `python -m benchmarks`."""

GROUPS = ("kernels", "processors", "overhead", "accuracy", "console", "meters", "scaling")
"""What can be run by itself, in the order in which it is run."""
