"""Where compiled kernels are kept: by the content of their sources, and those that came with the wheel."""
