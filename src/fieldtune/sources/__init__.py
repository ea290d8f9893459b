"""Readers of other people's data: each yields `Example` rows and says which pieces it left out, and why."""
