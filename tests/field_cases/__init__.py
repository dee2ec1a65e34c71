"""Inputs and situations as people have them, each a test named after what the user has.

`test_checkpoints.py`: models. `test_data.py`: pictures and captions. `test_numbers.py`: how models
are sampled and compared.
"""
