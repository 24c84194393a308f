"""Who starts, watches, restarts and stops the stages."""
