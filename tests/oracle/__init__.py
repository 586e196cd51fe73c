"""Every operator and rule against a slow restatement in float64: the cases lie in graphs/ops, the rules in the catalogue."""
