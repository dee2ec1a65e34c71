"""What training is made of: batches and their latent cache, targets, losses, optimizers.

Modules to start from: `loss_table` (where to add a loss), `stage_loss` (where a batch becomes a
loss), `data_sources` (where to add a kind of training data), `source` (how batches are drawn).
Import from the modules: the tables here must be readable without torch.
"""
