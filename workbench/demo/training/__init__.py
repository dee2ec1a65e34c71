"""How the bundled teacher was trained: its VAE, its transformer, and how the shipped weights were
made.
"""
