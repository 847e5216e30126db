"""A key is a tensor, but a tensor is no key."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor

from purepyro import random

key = random.key(0)
assert_type(key, random.Key)
as_tensor: Tensor = key

assert_type(random.split(key, 3), random.Key)
assert_type(random.fold_in(key, 3), random.Key)
assert_type(random.fold_in(key, torch.tensor(3)), random.Key)
assert_type(random.name_key(key, "net.weight"), random.Key)
assert_type(random.normal(key, 2, 3), Tensor)
assert_type(random.uniform(key, 2, 3), Tensor)
assert_type(random.permutation(key, 10), Tensor)

# What torch gives back of a key, such as a row of a stack, is named a key again.
rows = random.split(key, 3)
assert_type(rows[0], Tensor)
assert_type(random.normal(random.Key(rows[0]), 3), Tensor)
