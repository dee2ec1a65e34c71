"""Recipes: a plan rule and a distillation spec in one file, relative to depth.

`recipe` says what a recipe is, `table` has those that ship.
"""
