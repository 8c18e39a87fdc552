"""What runs on the GPU, in Triton.  Nothing here is imported before a kernel is wanted."""
