"""Published benchmarks: their prompt files, the layouts of their scorers, and those scorers' results."""
