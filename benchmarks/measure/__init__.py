"""What measures: times, errors, and counts of what is right; nothing here prints or draws."""
