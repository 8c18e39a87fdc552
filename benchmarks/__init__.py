"""Speed, memory and accuracy of every processor, beside the libraries that do the same: `python -m benchmarks`."""

GROUPS = ("kernels", "processors", "accuracy", "console")
"""What can be run by itself."""
