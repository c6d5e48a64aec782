"""What a run leaves for readers: results.json, Markdown, one HTML page."""
