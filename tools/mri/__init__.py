"""Two small classifiers of brain-MRI slices, trained on a public template with pasted lesions (see `train.py`)."""
