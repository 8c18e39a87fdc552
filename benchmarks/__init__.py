"""Speed, memory and accuracy of every processor, beside the libraries that do the same: `python -m benchmarks`."""
