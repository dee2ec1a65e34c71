"""Editing a plan by hand: a plan and the teacher blocks a person selected give another plan.

`marks` decides which student blocks there are (keep, drop, merge); `span_fields` changes what
they are made of (stream, init, gain, parts). Pure arithmetic, shared by the app and the notebook.
"""
