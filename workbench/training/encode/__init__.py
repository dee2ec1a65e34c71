"""Filling a latent cache with a teacher's own pipeline: from prompts, or from captioned pictures.

Modules: `cache_writer` (cache_prompts, cache_images), `pictures` (reading folders and tar shards),
`latents` (the VAE's side), `pipeline_calls` (the text's side).
"""
