"""What every other part stands on: types, pytrees, pickling, whole numbers."""
