"""Answers -> numbers and pictures: one file per kind of answer."""
