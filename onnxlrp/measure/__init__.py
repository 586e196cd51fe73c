"""How good an explanation is, in numbers: does relevance add up, does the model need what it marks, is it in place."""
