"""Where tables live: batches, cursors and SQL → committed tables."""
