"""Distilling a student: stages of losses, as one generator that job, notebook and test drive alike.

What a stage does follows from its fields, not from its name: gradient `span` trains block by block,
`full` runs the student end to end. Modules: `loop` (distill, the generator), `run` (where a run
stands, one optimizer step), `stage_work` (what a stage needs), `trainable` (what trains),
`checkpoints`, `folder` (the student's folder), `processes`, `estimate` (from a spec alone).
"""
