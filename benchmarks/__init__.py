"""Speed and memory of `sqlflow run`, side by side with the same work typed by hand."""
