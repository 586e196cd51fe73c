"""Every operator and rule against a slow restatement in float64: cases from graphs/ops, rules
from the catalogue."""
