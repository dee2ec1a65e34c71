"""Blind studies: what raters see, their votes, and what follows from these."""
