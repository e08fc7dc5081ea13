"""Which ways are there to evaluate f at perturbed points? One file each, all with one signature."""
