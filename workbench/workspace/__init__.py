"""The workspace: its folder, its database, its jobs and the processes that run them.

Nothing here imports torch.
"""
