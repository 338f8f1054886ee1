"""The one routine that brings a branch up to date, and what feeds it."""
