"""Recipes: a plan rule and a distillation spec in one file, relative to depth."""
