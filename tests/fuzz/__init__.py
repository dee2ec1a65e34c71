"""A seeded fuzzer over every file that the workbench reads: `python -m tests.fuzz --mutations N`."""
