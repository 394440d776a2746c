"""The store on servers of every kind: each transition alone, and against the others."""
