"""How are hand-written gradients checked? Against differences of f, with the fault in words."""
