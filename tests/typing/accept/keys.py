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

# The rows of a stack are keys; what torch computes from them is not, and is named a key again.
rows = random.split(key, 3)
assert_type(rows[0], random.Key)
first, second = random.split(key)
assert_type(first, random.Key)
assert_type(list(rows), list[random.Key])
assert_type(rows.clone(), Tensor)
assert_type(random.normal(random.Key(rows.clone()), 3, 3), Tensor)
