"""Students with weights in fewer bits, as files: what is in them, and their weights unpacked."""
