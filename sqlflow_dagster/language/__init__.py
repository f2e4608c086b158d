"""SQLFlow text → syntax tree, variables and conditions."""
