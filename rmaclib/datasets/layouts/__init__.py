"""Readers of the standard layouts, one file each (Sections 3 and 5.1)."""
