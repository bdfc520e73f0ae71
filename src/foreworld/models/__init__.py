"""Families of world models; one family is one file."""
