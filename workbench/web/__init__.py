"""Servers without Gradio: the page for raters of a study, and the guard of every server here."""
