"""Systems outside → batches of rows, and rows → systems outside; one file a system."""
