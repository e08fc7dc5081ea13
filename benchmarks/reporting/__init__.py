"""What prints and draws: a benchmark's tables and pictures, and the page of all of them."""
