"""What is differentiated: nets with their batches, and functions with their derivatives."""
