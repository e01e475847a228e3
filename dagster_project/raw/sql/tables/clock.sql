select as_of, true as _generated from scope
