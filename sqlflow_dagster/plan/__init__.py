"""Syntax trees → the plan: what runs, and who needs whom."""
